"""`jepa new-modality` writes a complete package, and `jepa modalities` lists installed ones."""

import errno
from pathlib import Path
from typing import Any

import pytest

from jepa.plugins import commands
from jepa.plugins.commands import write_package


def test_a_new_package_holds_no_placeholder_of_the_template(tmp_path: Path) -> None:
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
        ("Point", "'Point' is not a valid name; use lower-case letters, digits and single hyphens"),
        ("a--b", "'a--b' is not a valid name"),
        ("3d", "'3d' is not a valid name"),
        ("../x", "'../x' is not a valid name"),
        ("image", "modality 'image' is already installed"),
        ("waves", "'waves' needs a class Waves"),
        ("random-mask", "needs a class RandomMask"),
        ("none", "needs a class None"),
        ("taken", "taken exists; nothing was written"),
    ],
)
def test_an_invalid_or_taken_name_is_refused(
    name: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    assert commands.new_modality([name, "--into", str(tmp_path)]) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_a_full_disk_leaves_no_half_package_that_a_second_try_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text = Path.write_text
    written: list[Path] = []

    def until_full(path: Path, *args: Any, **options: Any) -> int:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write_text(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", until_full)
        assert commands.new_modality(["ebb", "--into", str(tmp_path)]) == 1
    assert "ebb cannot be written: the disk is full" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "ebb").exists()
    (tmp_path / "ebb.partial").mkdir(exist_ok=True)
    (tmp_path / "ebb.partial" / "stale").touch()
    assert commands.new_modality(["ebb", "--into", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ebb"]
    assert (tmp_path / "ebb" / "pyproject.toml").is_file()
    assert not (tmp_path / "ebb" / "stale").exists()


def test_installed_modalities_are_listed_with_those_that_cannot_be_loaded(
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
    assert any("sonar" in line and "sonar-broken 0.3" in line and "cannot be loaded" in line for line in lines)
    reported = next(line for line in lines if line.startswith("modality 'sonar' of sonar-broken 0.3"))
    assert "OSError: no [device]" in reported
    assert reported.endswith("sonar_broken.py, line 2)")
