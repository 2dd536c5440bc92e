"""What `jepa new-modality` writes is complete, and what is installed is listed."""

from pathlib import Path

import pytest

from jepa.plugins import commands
from jepa.plugins.commands import write_package


def test_nothing_of_the_template_is_left_in_a_package(tmp_path: Path) -> None:
    folder = write_package("point-grid2", tmp_path)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "README.md", "pyproject.toml", "jepa_point_grid2/__init__.py", "jepa_point_grid2/modality.py",
        "jepa_point_grid2/configs/point-grid2.yaml", "tests/test_modality.py",
    }  # fmt: skip
    for path in folder.rglob("*.*"):
        assert "emplate" not in path.name
        assert path.is_dir() or "template" not in path.read_text().lower()
    assert "class PointGrid2(Modality[PointGrid2Config]):" in (folder / "jepa_point_grid2" / "modality.py").read_text()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Point", "'Point' is no name of a modality; use lower-case letters, digits and single hyphens"),
        ("a--b", "'a--b' is no name"),
        ("3d", "'3d' is no name"),
        ("../x", "'../x' is no name"),
        ("image", "a modality 'image' is installed already"),
        ("waves", "'waves' would name a class Waves, which its module uses for another thing"),
        ("random-mask", "would name a class RandomMask"),
        ("none", "would name a class None"),
        ("there", "there is there already; nothing was written"),
    ],
)
def test_a_name_that_is_none_or_taken_is_refused(
    name: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    assert commands.new_modality([name, "--into", str(tmp_path)]) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_what_is_installed_is_listed_with_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "sonar_broken-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sonar-broken\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[jepa.modalities]\nsonar = sonar_broken:Sonar\n")
    (tmp_path / "sonar_broken.py").write_text("import torch\nraise OSError('no [device]')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert commands.modalities([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("image-text" in line and "image_text:ImageText" in line and "openjepa" in line for line in lines)
    assert any("sonar" in line and "sonar-broken 0.3" in line and "cannot be used" in line for line in lines)
    told = next(line for line in lines if line.startswith("modality 'sonar' of sonar-broken 0.3"))
    assert "OSError: no [device]" in told
    assert told.endswith("sonar_broken.py, line 2)")
