"""Nuisance has the strength that it says, is the same at every writing, and leaves the classes alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.study import __main__ as study
from benchmarks.study.nuisance import FolderImages, Nuisance, NuisanceError, write

SIDE = 32


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one grey each, 60 to 195, in two splits of two classes."""
    root = tmp_path_factory.mktemp("grey")
    for number in range(16):
        path = root / ("train", "test")[number % 2] / ("a", "b")[number // 2 % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (60 + 9 * number,) * 3).save(path, quality=100)
    return root


def written(source: Path, out: Path, nuisance: Nuisance) -> dict[str, np.ndarray]:
    """The pixels of all written images less those of their sources, by name."""
    assert write(FolderImages(source), out, nuisance) == 16
    sources = FolderImages(source)
    changes = {}
    for path in sorted(out.rglob("*.png")):
        name = path.relative_to(out).as_posix()
        changes[name] = np.asarray(Image.open(path)).astype(int) - sources.pixels(name.removesuffix(".png"))
    return changes


def test_noise_has_its_standard_deviation_and_no_mean(grey: Path, tmp_path: Path) -> None:
    changes = np.stack([*written(grey, tmp_path / "noisy", Nuisance(noise=16)).values()])
    assert changes.shape == (16, SIDE, SIDE, 3)
    assert changes.std() == pytest.approx(16, rel=0.02)
    assert abs(changes.mean()) < 0.3
    assert abs(np.corrcoef(changes[0].ravel(), changes[1].ravel())[0, 1]) < 0.1  # every file has its own


def test_patches_cover_a_ninth_of_the_image_each_and_come_from_the_same_split(grey: Path, tmp_path: Path) -> None:
    for name, change in written(grey, tmp_path / "patched", Nuisance(patches=1)).items():
        assert (change != 0).all(axis=2).sum() == (SIDE // 3) ** 2
        others = {60 + 9 * number for number in range(16) if ("train", "test")[number % 2] == name.split("/")[0]}
        assert 60 + 9 * int(Path(name).name.split(".")[0]) + change.flat[np.abs(change).argmax()] in others


def test_a_background_changes_the_border_and_not_the_middle(grey: Path, tmp_path: Path) -> None:
    for change in written(grey, tmp_path / "background", Nuisance(background=1.0)).values():
        assert not change[SIDE // 2 - 5 : SIDE // 2 + 5, SIDE // 2 - 5 : SIDE // 2 + 5].any()
        assert len(np.unique(change[0])) == 1  # all of another image, which has one grey
        assert change[0].all()


def test_the_same_command_writes_the_same_files_and_another_seed_others(
    grey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def files(folder: str, seed: str) -> dict[str, bytes]:
        words = ["nuisance", str(grey), str(tmp_path / folder), "--noise", "32", "--patches", "1", "--seed", seed]
        assert study.main(words) == 0
        return {
            path.relative_to(tmp_path / folder).as_posix(): path.read_bytes()
            for path in (tmp_path / folder).rglob("*.png")
        }

    first = files("first", "0")
    assert first.keys() == {f"{name}.png" for name in FolderImages(grey).names}
    assert files("second", "0") == first
    assert not set(files("third", "1").values()) & set(first.values())
    assert study.main(["nuisance", str(grey), str(tmp_path / "first"), "--noise", "32"]) == 1
    assert "exists already; choose another folder, or remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "no nuisance is chosen; set --noise, --background or --patches"),
        (["--background", "2"], "--background: should be a share of at least 0 and at most 1, not 2.0"),
        (["--noise", "-1"], "--noise and --patches: should not be below 0"),
    ],
)
def test_no_or_impossible_nuisance_is_refused(
    options: list[str], sentence: str, grey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.main(["nuisance", str(grey), str(tmp_path / "out"), *options]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_image_without_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train" / "a" / "one.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(NuisanceError, match="the only image of its split"):
        write(FolderImages(tmp_path), tmp_path / "out", Nuisance(patches=1))
