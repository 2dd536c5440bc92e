"""Configs keep values exactly; mistakes are one sentence that names the key and what is allowed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ConfigDict, Field
from tiny import NoiseConfig

from jepa.cluster.sweep import variants
from jepa.config import (
    ConfigError,
    Tree,
    build,
    differences,
    merge,
    parse_override,
    parse_yaml,
    plain,
    read_yaml,
    to_yaml as written,
)
from jepa.config.recipes import read_recipe, recipes
from jepa.launch import resolve
from jepa.masking import RandomMaskConfig, TubeMaskConfig
from jepa.modality import DataConfig
from jepa.model_config import ModelConfig
from jepa.training.config import Config
from jepa.training.teachers import HalfLifeTeacher

NEEDED: Tree = {"modality": "noise", "run_dir": "somewhere"}


def built(*overrides: str, recipe: Tree | None = None) -> Config[NoiseConfig, ModelConfig]:
    layers = [parse_override(text, Config[NoiseConfig, ModelConfig]) for text in overrides]
    return build(Config[NoiseConfig, ModelConfig], [NEEDED, recipe or {}, *layers])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "optim.peek_lr=1",
            "unknown key 'optim.peek_lr', did you mean 'optim.peak_lr'? 'optim' takes: optimizer, batch_size, peak",
        ),
        ("optm.peak_lr=1", "unknown key 'optm', did you mean 'optim'? The config takes: modality, run_dir, steps"),
        ("zzz=1", "unknown key 'zzz'. The config takes: modality, run_dir, steps"),
        ("batch_size=1", "unknown key 'batch_size', did you mean 'optim.batch_size'? The config takes: modality"),
        ("data.masking.targets=3", "unknown key 'data.masking.targets'. 'data.masking' of kind random takes: pred"),
        ("model.size={width: 96, depth: 2, heads: 2, hats: 1}", "unknown key 'model.size.hats', did you mean"),
        ("steps=many", "steps: should be a valid integer, not 'many'"),
        ("steps=1.5", "steps: should be a valid integer, not 1.5"),
        ("steps=0", "steps: should be greater than 0, not 0"),
        ("seed=true", "seed: should be a valid integer, not True"),
        ("seed=-1", "seed: should be greater than or equal to 0, not -1"),
        ("optim.warmup=1.5", "optim.warmup: should be less than or equal to 1, not 1.5"),
        ("optim.betas.1=7", "optim.betas.1: should be less than or equal to 1, not 7"),
        ("optim.betas.2=0.5", "optim.betas has 2 items, so there is no optim.betas.2"),
        ("optim.peak_lr=.nan", "optim.peak_lr: should be greater than 0, not nan"),
        ("optim.peak_lr.x=1", "optim.peak_lr: should be a valid number, not {'x': 1}"),
        ("optim=5", "optim: should be a section of settings, not 5"),
        ("evaluate.enabled=1", "evaluate.enabled: should be a valid boolean, not 1"),
        ("stages.0.predict=pixel", "stages.0.predict: 'pixel'"),
        ("model.size=vit_bas", "model.size: should be 'vit_nano', 'vit_tiny', 'vit_small', 'vit_base', 'vit_large'"),
        ("model.predictor.heads=5", "model.predictor: "),
        (
            "stages.0.teacher.kind=half_life",
            "stages.0.teacher.start_samples: must be set; stages.0.teacher.end_samples: must be set",
        ),
        ("data.masking.kind=tub", "data.masking.kind: should be 'block', 'tube', 'random'"),
        ("data.root.x=1", "data.root: should be a valid string, not {'x': 1}"),
        ("data.rot=/x: y #2", "unknown key 'data.rot', did you mean 'data.root'?"),
        ("steps=5 #2", "steps: in '5 #2' the '#' begins a YAML comment, so the text after it would be lost"),
        ("data.bad=[3, 4]# 5", "data.bad: in '[3, 4]# 5' the '#' begins a YAML comment"),
        ("data={root: 2012}", "data.root: should be a valid string, not 2012 (in YAML, text that reads as a number or"),
        ("data={root: /x/set #2}", "the value of data is not valid YAML"),
        ("seed=[1", "the value of seed is not valid YAML"),
        ("steps", "'steps' is not of the form section.key=value"),
        ("=5", "'=5' is not of the form section.key=value"),
        ("optim..peak_lr=5", "'optim..peak_lr=5' is not of the form section.key=value"),
        ("optim.\udcff=5", "is not of the form section.key=value"),
        ("optim.peak_lr=\udcff", "optim.peak_lr: should be a valid number"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        built(override)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@dataclass(frozen=True, kw_only=True)
class TextConfig(DataConfig):
    """Settings that take text, and settings that take text or something else."""

    name: str = ""
    either: str | NoiseConfig | tuple[int, ...] = ""
    number: str | int = ""
    labels: tuple[str, ...] = ("a", "b")
    by_name: Mapping[str, Path] = field(default_factory=dict)
    choice: Literal["none", "no"] | None = None


SPELLINGS = [
    *("/x/set #2", "#2", "null", "~", "@x", "2012", "1e5", "a: b", "[new] photos", "{a", "100%", "it's", '"quoted"'),
    *(
        "'",
        "trailing ",
        " leading",
        "a=b",
        "true",
        "- x",
        "!!x",
        "&a",
        "*a",
        "|",
        "%",
        "\u00e9\u0301 \u2603",
        "a\nb",
        "a\tb",
    ),
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_text_after_the_equals_sign_is_taken_as_it_is(text: str) -> None:
    config = built(f"data.root={text}", f"run_dir={text}", f"start_from={text}")
    assert config.data.root == config.run_dir == Path(text)
    assert config.start_from == Path(text).as_posix()
    for key in ("name", "either", "labels.1", "by_name.x"):
        layers: list[Tree] = [{"by_name": {"x": "y"}}, parse_override(f"{key}={text}", TextConfig)]
        config = build(TextConfig, layers)
        found = {"labels.1": config.labels[1], "by_name.x": config.by_name["x"]}.get(key, getattr(config, key, None))
        assert found == (Path(text) if key == "by_name.x" else text)
    (variant,) = variants([f"name={text}"], 0, TextConfig)
    assert build(TextConfig, [parse_override(variant.overrides[0], TextConfig)]).name == text


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("root=", None),
        ("name=", ""),
        ("choice=", None),
        ("choice=no", "no"),
        ("choice=none", "none"),
        ("choice=null", None),
        ("either=[1, 2]", (1, 2)),
        ("either={samples: 3}", NoiseConfig(samples=3)),
        ("number=7", 7),
        ("number=7 #", "7 #"),
        ("number='7'", "'7'"),
        ("labels=[x, '#y']", ("x", "#y")),
    ],
)
def test_null_lists_mappings_and_numbers_have_one_spelling_each(override: str, value: Any) -> None:
    config = build(TextConfig, [{"root": "x", "choice": "no"}, parse_override(override, TextConfig)])
    assert getattr(config, override.partition("=")[0]) == value


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^modality: must be set; run_dir: must be set$"):
        build(Config[NoiseConfig, ModelConfig], [])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"steps: 1\noptim: {peak_lr: 1}\nsteps: 2\n", r"recipe\.yaml: duplicate key .steps. \(line 1\)"),
        (b"optim:\n  peak_lr: 1\n  peak_lr: 2\n", r"recipe\.yaml: duplicate key .peak_lr. \(line 2\)"),
        (b"steps: [1\n", r"recipe\.yaml is not valid YAML: while parsing a flow sequence"),
        (
            b"optim: !!python/object:os.system {}\n",
            r"recipe\.yaml is not valid YAML: could not determine a constructor",
        ),
        (b"- steps\n", r"recipe\.yaml must hold a mapping of sections, not a list"),
        (b"steps: \xff\n", r"cannot read config .*recipe\.yaml"),
        (None, r"cannot read config .*recipe\.yaml: .*No such file"),
    ],
)
def test_an_invalid_recipe_is_refused_with_its_path(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        read_yaml(path)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("# nothing yet\n")
    assert read_yaml(tmp_path / "recipe.yaml") == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5e3", 1500.0),
        ("1e4", 10_000),
        ("-2E+2", -200),
        ("1_000", 1000),
        ("null", None),
        ("true", True),
        ("[1, 2e1]", [1, 20]),
        ("vit_1e3", "vit_1e3"),
        ("'1e3'", "1e3"),
    ],
)
def test_numbers_with_exponents_are_numbers_and_quoted_ones_strings(text: str, value: Any) -> None:
    parsed = parse_yaml(text, "a test")
    assert parsed == value
    assert type(parsed) is type(value)


def test_later_layers_override_earlier_ones_and_items_of_lists() -> None:
    config = built("optim.betas.0=0.5", "steps=1e4", "data.bad=[3, 4]", recipe={"optim": {"peak_lr": 0.1}, "steps": 7})
    assert (config.steps, config.optim.peak_lr, config.optim.betas, config.data.bad) == (
        10_000,
        0.1,
        (0.5, 0.999),
        (3, 4),
    )


def test_another_kind_replaces_a_section_and_the_same_kind_merges() -> None:
    recipe: Tree = {"data": {"masking": {"kind": "tube", "blocks": 3, "scale": 0.2}}}
    assert built("data.masking.kind=random", recipe=recipe).data.masking == RandomMaskConfig()
    assert built("data.masking.kind=tube", recipe=recipe).data.masking == TubeMaskConfig(blocks=3, scale=0.2)
    assert built("data.masking.blocks=4", recipe=recipe).data.masking == TubeMaskConfig(blocks=4, scale=0.2)
    config = built(*(f"stages.0.teacher.{one}" for one in ("kind=half_life", "start_samples=10", "end_samples=1e3")))
    assert config.stages[0].teacher == HalfLifeTeacher(start_samples=10.0, end_samples=1000.0)


def test_one_key_of_a_section_leaves_the_others() -> None:
    loss = built("loss.distance=l1", recipe={"loss": {"distance": "l2", "normalise_prediction": True}}).loss
    assert (loss.distance, loss.normalise_prediction) == ("l1", True)


def test_merging_changes_neither_tree() -> None:
    base, layer = {"a": {"b": [1, 2]}}, {"a": {"b": {"1": 5}, "c": 3}}
    assert merge(base, layer) == {"a": {"b": [1, 5], "c": 3}}
    assert (base, layer) == ({"a": {"b": [1, 2]}}, {"a": {"b": {"1": 5}, "c": 3}})


@settings(max_examples=20, deadline=None)
@given(
    steps=st.integers(1, 10**9),
    rate=st.floats(1e-12, 1e3),
    betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    size=st.sampled_from(["vit_base", {"width": 96, "depth": 2, "heads": 4, "mlp_ratio": 2.5}]),
    masking=st.sampled_from([{"kind": "tube", "aspect": [0.5, 2.0]}, {"kind": "causal", "axis": 1}]),
    run_dir=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1),
)
def test_a_config_survives_plain_data_json_and_yaml_exactly(run_dir: str, **drawn: Any) -> None:
    layer = {
        "run_dir": run_dir,
        "steps": drawn["steps"],
        "optim": {"peak_lr": drawn["rate"], "betas": list(drawn["betas"])},
        "model": {"size": drawn["size"]},
        "data": {"masking": drawn["masking"]},
    }
    config = build(Config[NoiseConfig, ModelConfig], [NEEDED, layer])
    assert build(Config[NoiseConfig, ModelConfig], [plain(config)]) == config
    assert build(Config[NoiseConfig, ModelConfig], [json.loads(json.dumps(plain(config)))]) == config
    assert build(Config[NoiseConfig, ModelConfig], [parse_yaml(written(config), "config.yaml")]) == config
    assert differences(plain(config), parse_yaml(written(config), "config.yaml")) == []


def test_differences_name_keys_and_both_values() -> None:
    old, new = plain(built()), plain(built("steps=5", "model.size={width: 96, depth: 2, heads: 2}"))
    assert differences(old, new)[0] == "steps (10000 there, 5 now)"
    assert differences(old, new)[1].startswith("model.size (vit_small there, {'width': 96")
    assert differences({"a": 1}, {"b": 2}) == ["a (1 there, None now)", "b (None there, 2 now)"]


def test_a_section_can_be_built_alone() -> None:
    assert build(ModelConfig, []) == ModelConfig()


@dataclass(frozen=True, kw_only=True)
class Band:
    kind: Literal["band"] = "band"
    hertz: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Notch:
    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # its own, which does not mention unknown keys
    removed_settings: ClassVar = ("width",)
    kind: Literal["notch"] = "notch"
    depth: int = 1


@dataclass(frozen=True)
class Low:
    type: Literal["low"] = "low"
    slope: int = 1


@dataclass(frozen=True)
class High:
    type: Literal["high"] = "high"


@dataclass(frozen=True, kw_only=True)
class FilterConfig(DataConfig):
    """A plug-in's section with config dataclasses in a list, a mapping and unions of three kinds."""

    filters: tuple[Annotated[Band | Notch, Field(discriminator="kind")], ...] = ()
    named: Mapping[str, Notch] = field(default_factory=dict)
    first: Band | Notch = field(default_factory=Band)
    last: Band | None = None
    sides: tuple[Annotated[Low | High, Field(discriminator="type")], ...] = ()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("filters=[{kind: band}, {kind: notch, dept: 2}]", "'filters.1.dept', did you mean 'filters.1.depth'?"),
        (
            "filters=[{kind: band, depth: 2}]",
            "unknown key 'filters.0.depth'. 'filters.0' of kind band takes: kind, hertz",
        ),
        ("named={a: {hertz: 2}}", "unknown key 'named.a.hertz'. 'named.a' takes: kind, depth"),
        (
            "first.hert=2",
            "unknown key 'first.hert', did you mean 'first.hertz'? 'first' of kind band takes: kind, hertz",
        ),
        ("last={hert: 2, kind: 3}", "unknown key 'last.hert', did you mean 'last.hertz'? 'last' takes: kind, hertz"),
        ("named={a: {depth: '2'}}", "named.a.depth: should be a valid integer, not '2'"),
        ("sides=[{type: middle}]", "sides.0.type: should be 'low' or 'high', not 'middle'"),
        ("sides=[{slope: 2}]", "sides.0.type: must be set"),
        ("sides=[{type: low, kind: a}]", "unknown key 'sides.0.kind'. 'sides.0' takes: type, slope"),
    ],
)
def test_unknown_keys_and_wrong_types_are_found_wherever_a_plug_in_nests_its_sections(
    override: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        build(FilterConfig, [parse_override(override, FilterConfig)])
    assert sentence in str(refused.value)


def test_a_removed_setting_is_dropped_from_its_own_section_only() -> None:
    saved: Tree = {"filters": [{"kind": "notch", "width": 3, "depth": 2}], "named": {"a": {"width": 4}}}
    config = build(FilterConfig, [saved])
    assert config == FilterConfig(filters=(Notch(depth=2),), named={"a": Notch()})
    assert saved["filters"][0]["width"] == 3
    with pytest.raises(ConfigError, match=r"unknown key 'first.width'\. 'first' of kind band takes: kind, hertz"):
        build(FilterConfig, [saved, {"first": {"width": 3}}])


def test_a_recipe_changes_settings_of_its_base_by_name_or_by_a_path_beside_it(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: image/vith14_ijepa\nsteps: 7\noptim: {warmup: 0.5}\n")
    (tmp_path / "long.yaml").write_text("base: own.yaml\nsteps: 70\n")
    base, found = read_recipe("image/vith14_ijepa"), read_recipe(str(tmp_path / "long.yaml"))
    assert found == {**base, "steps": 70, "optim": {**base["optim"], "warmup": 0.5}}


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("no_such", r"own\.yaml: base: no_such is neither a file nor a recipe; recipes: image, "),
        ("own.yaml", r"base: own\.yaml starts from itself"),
        ("[image]", r"own\.yaml: base: \['image'\] is neither a file nor a recipe"),
    ],
)
def test_a_base_that_cannot_be_read_is_refused(base: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"base: {base}\n")
    with pytest.raises(ConfigError, match=sentence):
        read_recipe(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_valid(name: str) -> None:
    modality = name.split("/")[0].replace("_", "-")
    config, _ = resolve(modality, read_recipe(name), [])
    assert config.modality == modality
