"""Modality names: of installed packages or as package.module:Class, and errors that list the installed names."""

import sys
from pathlib import Path

import pytest

from jepa import launch
from jepa.config.recipes import default_recipe, plain_name, read_recipe, recipes
from jepa.modality import CONTRACT
from jepa.plugins import registry
from jepa.plugins.registry import UnknownModalityError, declared_name, installed, modality_class

PLUGIN = """
from dataclasses import dataclass
from jepa.modality import DataConfig, Modality
{top}
class Sonar(Modality):
    {body}
    config_type = DataConfig
    def dataset(self, split): return []
    def sample_masks(self, batch_size, generator): return []
"""


def package(site: Path, name: str, top: str = "", body: str = f"contract = {CONTRACT}", entry: str = "sonar") -> None:
    """Write an installed package: a module, and the metadata that pip writes beside it."""
    (site / f"{name}.py").write_text(PLUGIN.format(top=top, body=body))
    info = site / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry} = {name}:Sonar\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_an_installed_modality_is_imported_only_when_it_is_used(site: Path) -> None:
    package(site, "sonar_asked")
    assert "sonar_asked" not in sys.modules
    assert "sonar" in registry.names()
    assert "sonar_asked" not in sys.modules
    assert modality_class("sonar").__name__ == "Sonar"


def test_a_class_that_is_not_installed_is_found_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sonar_here.py").write_text(PLUGIN.format(top="", body="contract = 1"))
    with pytest.raises(UnknownModalityError, match=r"no module 'sonar_here': .* not in the working directory"):
        modality_class("sonar_here:Sonar")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    assert modality_class("sonar_here:Sonar").__name__ == "Sonar"


def test_an_unknown_name_is_refused_with_the_installed_names(site: Path) -> None:
    package(site, "sonar_known")
    with pytest.raises(UnknownModalityError, match=r"no modality 'radar'; installed: .*image, .*sonar, .*video\. "):
        modality_class("radar")


def test_two_packages_that_declare_one_name_are_both_named(site: Path) -> None:
    package(site, "sonar_one")
    package(site, "sonar_two")
    with pytest.raises(UnknownModalityError) as caught:
        modality_class("sonar")
    for named in ("sonar_one 1.5 (sonar_one:Sonar)", "sonar_two 1.5 (sonar_two:Sonar)", "package.module:Class"):
        assert named in str(caught.value)
    assert modality_class("sonar_two:Sonar").__module__ == "sonar_two"
    assert modality_class("image").__name__ == "Image"


@pytest.mark.parametrize(
    ("top", "body", "sentence"),
    [
        ("import no_such_thing", "contract = 1", "No module named 'no_such_thing' .*line 4"),
        ("1 / 0", "contract = 1", "cannot be imported: ZeroDivisionError: division by zero .*line 4"),
        ("raise SystemExit(3)", "contract = 1", "cannot be imported: SystemExit: 3"),
        ("def (", "contract = 1", "cannot be imported: SyntaxError"),
        ("", "pass", "has no contract version; write `contract = 1`"),
        (
            "",
            "contract = 99",
            "written for version 99 of the contract, and this is version 1; install a newer openjepa",
        ),
        ("", "contract = 0", "install a newer version of its package"),
        ("Modality = object", "contract = 1", "is not a subclass of jepa.modality.Modality"),
    ],
)
def test_a_broken_package_breaks_no_other_and_gives_the_reason(
    site: Path, request: pytest.FixtureRequest, top: str, body: str, sentence: str
) -> None:
    name = f"sonar_{abs(hash((top, body)))}"
    package(site, name, top, body)
    listed = {one.name: one for one in installed()}
    with pytest.raises(UnknownModalityError, match=f"modality 'sonar' of {name} 1.5: .*{sentence}"):
        modality_class("sonar")
    assert listed["sonar"].package == f"{name} 1.5"
    assert listed["sonar"].error
    assert listed["image"].error == listed["video"].error == ""
    assert listed["image"].file.endswith("modalities/image/modality.py")


def test_an_error_of_the_operating_system_in_a_modality_is_reported_in_a_sentence(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = "contract = 1\n    def __init__(self, config): open('/no/such/list')"
    package(site, "sonar_missing", "", init)
    assert launch.main(["--modality", "sonar", "--dry-run"]) == 1
    assert "error: data: [Errno 2] No such file or directory: '/no/such/list'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_misspelt_class_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownModalityError, match=r"modalities\.image has no 'Imag', did you mean 'Image'\?"):
        modality_class("modalities.image:Imag")
    with pytest.raises(UnknownModalityError, match=r"'a b:C' is not of the form package\.module:name"):
        modality_class("a b:C")


def test_recipes_beside_a_class_are_found_by_the_modality_name(site: Path) -> None:
    package(site, "sonar_recipes")
    (site / "configs").mkdir()
    (site / "configs" / "sonar.yaml").write_text("steps: 7\n")
    found = modality_class("sonar")
    assert default_recipe("sonar", found) == default_recipe("sonar_recipes:Sonar", found) == "sonar"
    assert read_recipe("sonar", found) == {"steps": 7}
    assert {"sonar", "image", "image_text/tiny"} <= set(recipes(found))
    assert default_recipe("image-text") == "image_text/tiny"
    assert default_recipe("sonar_recipes:Image", found) is None  # that recipe has settings of another class
    assert declared_name("modalities.image:Image") == "image"
    assert declared_name("sonar_recipes:Image") == "sonar_recipes:Image"
    assert default_recipe("sonar") is None
    assert [plain_name(name) for name in ("time-series", "a.b:TimeSeries", "m:Outer.MP3")] == [
        "time-series", "time-series", "mp3",
    ]  # fmt: skip
