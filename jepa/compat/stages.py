"""The settings `target`, `curriculum` and `momentum` of earlier versions as `stages`."""

import json
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from jepa.config import ConfigError

FORMER = ("target", "curriculum", "momentum")
_MOMENTA = {"ema": ("linear", "start", "end"), "half_life": ("half_life", "start_samples", "end_samples")}
_MANY = 10**9  # steps of a run whose stages all have some
Tree = dict[str, Any]
_EMA = {"kind": "ema", "start": 0.996, "end": 1.0}  # the default teacher
# Numbers that the translation computes with: the least, whether that itself is excluded, and the largest.
_RANGES = {
    "steps": (1, False, float("inf")),
    "curriculum.pixel_weight": (0, False, float("inf")),
    "curriculum.latent_from": (0, False, 1),
    "momentum.start": (0, False, 1),
    "momentum.end": (0, False, 1),
    "momentum.start_samples": (0, True, float("inf")),
    "momentum.end_samples": (0, True, float("inf")),
    "optim.schedule_length": (0, True, float("inf")),
}


def current(config: Mapping[str, Any]) -> Tree:
    """A stored config, perhaps of an earlier version, in the settings of this one.

    Raises ConfigError for a former setting that has no meaning.
    """
    kept = {name: value for name, value in config.items() if name not in FORMER}
    return kept if len(kept) == len(config) else {**kept, "stages": _stages(config)}


def former(config: Tree) -> Tree:
    """A config with `stages` as the settings of earlier versions, in their order, if these can express it.

    Names of run directories are hashes of settings; a run started by an earlier version keeps its name.
    """
    stages = config["stages"]
    if not all(isinstance(stage, Mapping) and _is_whole(stage) for stage in stages):
        return config  # settings that were not validated
    settings = {**_former_targets(stages), "momentum": _former_momentum(stages)}
    if not settings["momentum"] or _stages({**config, **settings}) != stages:
        return config
    before = {"stages": ("target", "curriculum"), "compute": ("momentum",)}  # where they stood
    ordered: Tree = {}
    for key, value in config.items():
        ordered |= {one: settings[one] for one in before.get(key, ())}
        ordered |= {key: value} if key != "stages" else {}
    return ordered


def _former_targets(stages: Sequence[Mapping[str, Any]]) -> Tree:
    """What the last of whole stages predicts, and for how long the first predicts pixels alone, as former settings."""
    first, last = stages[0], stages[-1]["predict"]
    target = next((kind for kind in last if kind != "pixels"), "pixels")
    weight = last.get("pixels", 0.0) if target != "pixels" else 0.0
    return {
        "target": target,
        "curriculum": {"pixel_weight": weight, "latent_from": first["until"] if len(stages) > 1 else 0.0},
    }


def _former_momentum(stages: Sequence[Mapping[str, Any]]) -> Tree:
    """The moving average of whole stages from the first to the last; empty if some have another teacher."""
    teachers = [stage["teacher"] for stage in stages]
    if len({teacher["kind"] for teacher in teachers}) > 1 or teachers[0]["kind"] not in _MOMENTA:
        return {}
    name, start, end = _MOMENTA[teachers[0]["kind"]]
    return {"kind": name, start: teachers[0][start], end: teachers[-1][end]}


def _is_whole(stage: Mapping[str, Any]) -> bool:
    """Whether a stage has all its settings, written out, and its numbers are some."""
    predict, teacher = stage.get("predict"), stage.get("teacher")
    if not (isinstance(predict, Mapping) and predict and isinstance(teacher, Mapping) and "kind" in teacher):
        return False
    names = _MOMENTA.get(str(teacher["kind"]), ("",))[1:]
    return all(map(_is_number, [stage.get("until"), *predict.values(), *map(teacher.get, names)]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def new_spelling(tree: Tree) -> str:
    """What a user wrote with settings of earlier versions, as overrides of this one, quoted for a shell.

    tree: a config with both the former settings that the user wrote, and the `stages` that these change.
    """
    _check(tree)
    recipe = _completed(tree["stages"])
    known, given = _former_momentum(recipe), _section(tree, "momentum")
    is_same_kind = given.get("kind", known.get("kind")) == known.get("kind")
    momentum = {**(known if is_same_kind else {}), **given}
    if momentum.get("kind") == "half_life" and not {"start_samples", "end_samples"} <= momentum.keys():
        raise ConfigError("momentum: half_life needs start_samples and end_samples, numbers of samples")
    if "target" in tree or "curriculum" in tree:
        stages = _stages({**tree, **_targets(tree, recipe), "momentum": momentum})
        if not momentum:
            _set_teachers(stages, recipe)
        return shlex.quote(f"stages=[{', '.join(map(_shown, stages))}]")
    ends = [0, *(round(stage["until"] * tree.get("steps", 10_000)) for stage in recipe)]
    teachers = _teachers({**tree, "momentum": momentum}, ends)
    return shlex.join(f"stages.{number}.teacher={_flow(teacher)}" for number, teacher in enumerate(teachers))


def _completed(stages: Any) -> list[Tree]:
    """Stages as users may write them, with all that they may leave out; the default one if some are not valid."""
    found = [_with_defaults(stage) for stage in stages] if isinstance(stages, Sequence) else []
    return found if found and all(map(_is_whole, found)) else [_with_defaults({})]


def _with_defaults(stage: Any) -> Tree:
    if not isinstance(stage, Mapping):
        return {}
    predict, teacher = stage.get("predict", "latent"), stage.get("teacher", {})
    predict = {predict: 1.0} if isinstance(predict, str) else predict
    teacher = {"kind": teacher} if isinstance(teacher, str) else teacher
    if isinstance(teacher, Mapping) and teacher.get("kind", "ema") == "ema":
        teacher = {**_EMA, **teacher}
    return {"until": stage.get("until", 1.0), "predict": predict, "teacher": teacher}


def _targets(tree: Tree, recipe: Sequence[Tree]) -> Tree:
    """The former `target` and `curriculum` that a user wrote over those of a recipe."""
    known, given = _former_targets(recipe), _section(tree, "curriculum")
    in_full = _stages({**tree, **known, "steps": _MANY})  # in a short run, the first stage may round to no step
    is_known = [stage["predict"] for stage in recipe] == [stage["predict"] for stage in in_full]
    known = known if is_known else {"target": "latent", "curriculum": {}}
    curriculum = {**known["curriculum"], **given}
    if given.get("latent_from") and "pixel_weight" not in given:  # until then, something else was predicted
        curriculum["pixel_weight"] = curriculum.get("pixel_weight") or 1.0
    if not curriculum.get("pixel_weight"):
        curriculum["latent_from"] = 0.0
    return {"target": tree.get("target", known["target"]), "curriculum": curriculum}


def _set_teachers(stages: Sequence[Tree], recipe: Sequence[Tree]) -> None:
    """Give stages the teachers of a recipe, unless they would have no effect there."""
    stages[0]["teacher"] = recipe[0]["teacher"]
    stages[-1]["teacher"] = recipe[-1]["teacher"]
    if recipe[-1]["teacher"]["kind"] != "snapshot":
        return
    if set(stages[-1]["predict"]) == {"pixels"}:
        stages[-1]["teacher"] = {"kind": "frozen"}  # evaluates the context encoder too
    elif len(stages) > 1:
        stages[0]["teacher"] = _EMA  # the copy for the next stage replaces it


def _shown(stage: Tree) -> str:
    """A stage as YAML in one line, without what is the default."""
    return _flow({name: value for name, value in stage.items() if value not in (1.0, _EMA)})


def _check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for a former setting, or one that its translation reads, that has no meaning."""
    for name in ("curriculum", "momentum", "optim"):
        if not isinstance(section := config.get(name, {}), Mapping):
            raise ConfigError(f"{name}: should be a section of settings, not {section!r}")
    target, kind = config.get("target", "latent"), _section(config, "momentum").get("kind", "linear")
    if not isinstance(target, str):
        raise ConfigError(f"target: should be the name of a kind of target, not {target!r}")
    if kind not in ("linear", "half_life"):
        raise ConfigError(f"momentum.kind: should be linear or half_life, not {kind!r}")
    for path, (least, is_excluded, largest) in _RANGES.items():
        section, name = path.rpartition(".")[::2]
        value = (_section(config, section) if section else config).get(name, 1)
        is_within = _is_number(value) and least <= value <= largest and value < float("inf")
        if not is_within or (is_excluded and value == least):
            words = f"above {least}" if is_excluded else f"of at least {least}"
            words += "" if largest == float("inf") else f" and at most {largest}"
            raise ConfigError(f"{path}: should be a number {words}, not {value!r}")


def _stages(config: Mapping[str, Any]) -> list[Tree]:
    _check(config)
    target, curriculum = config.get("target", "latent"), _section(config, "curriculum")
    weight, share = curriculum.get("pixel_weight", 0.0), curriculum.get("latent_from", 0.0)
    steps = config.get("steps", 10_000)
    before = round(share * steps)
    if target == "pixels" or not before:
        predict = {"pixels": weight, target: 1.0} if weight and target != "pixels" else {target: 1.0}
        return [{"until": 1.0, "predict": predict, "teacher": _teachers(config, (0, steps))[0]}]
    first, last = _teachers(config, (0, before, steps))
    return [
        {"until": share, "predict": {"pixels": weight}, "teacher": first},
        {"until": 1.0, "predict": {"pixels": weight, target: 1.0}, "teacher": last},
    ]


def _teachers(config: Mapping[str, Any], ends: Sequence[int]) -> list[Tree]:
    """The momentum over a whole run as a teacher of each stage, with the values of the run at the stages' ends.

    ends: the first step, and the end of every stage. As schedules may be longer than a run, and are then longer than a
    stage by the same factor, the last value of a teacher may lie beyond its stage.
    """
    momentum, steps = _section(config, "momentum"), ends[-1]
    length = _section(config, "optim").get("schedule_length", 1.0)
    is_linear = momentum.get("kind", "linear") == "linear"
    names = ("start", "end") if is_linear else ("start_samples", "end_samples")
    start, end = (momentum.get(name, default) for name, default in zip(names, (0.996, 1.0), strict=True))

    def value(from_: float, share: float) -> float:
        if start == end:
            return float(start)
        # Without what is left of roundings: 0.98 + 0.02 must not lie above 1.
        return float(f"{from_ + (end - start) * share if is_linear else from_ * (end / start) ** share:.15g}")

    found = []
    for first, last in pairwise(ends):
        begin = value(start, first / (steps * length))
        stop = value(begin, (last - first) / steps)
        found.append({"kind": "ema" if is_linear else "half_life", names[0]: begin, names[1]: stop})
    return found


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _flow(value: Any) -> str:
    """Plain data as YAML in one line; a lone kind of target has weight 1."""
    if isinstance(value, Mapping):
        parts = (
            f"{key}: {next(iter(one)) if key == 'predict' and list(one.values()) == [1.0] else _flow(one)}"
            for key, one in value.items()
        )
        return f"{{{', '.join(parts)}}}"
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")
