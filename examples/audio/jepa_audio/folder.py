"""Recordings of one's own: wav files below a folder, in class folders or without labels."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from torch import Tensor

from jepa.modality import Sample, Split

_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Recordings:
    """What `read` makes of the files at `paths` below `folder`; the first part of a path is the class, if there are."""

    folder: Path
    paths: Sequence[str]
    classes: Sequence[str]
    read: Callable[[Path], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        inputs = self.read(self.folder / path)
        return Sample(inputs, {"class": self.classes.index(_top(path))} if self.classes else {})


def open_recordings(root: Path, split: Split, read: Callable[[Path], Tensor]) -> Recordings:
    """The wav files of one split; raises OSError or ValueError where there are none, or where they do not fit together.

    `root/train` is trained on, beside `root/validation` (or valid, val) and `root/test`; a lone one of the two is the
    test split. A split that is missing is a tenth of train, by the names of the files. Without any of these folders all
    of root is one training set. Its folders are the classes if there are two or more and no file lies beside them;
    otherwise nothing is labelled, and training leaves nothing out.
    """
    stored = _stored(root)
    train, folder = stored["train"], stored.get(split, stored["train"])
    classes, paths = _classes(train), _wave_paths(folder)
    if not paths:
        raise ValueError(f"no sound below {folder}; looked for files ending in .wav")
    if strays := {_top(path) for path in paths} - set(classes) if classes else set():
        raise ValueError(f"{folder / min(strays)} is not one of the class folders of {train}: {', '.join(classes)}")
    if folder == train and (classes or split != "train"):
        held_out: tuple[Split, ...] = ("validation", "test")
        missing = [name for name in held_out if name not in stored]
        paths = [path for path in paths if _role(path, missing) == split]
    return Recordings(folder, paths, classes, read)


def _stored(root: Path) -> dict[Split, Path]:
    """The folders of the splits that there are; `root` itself as the training set where there are none."""
    if not root.is_dir():
        raise NotADirectoryError(
            f"data root {root} is {'a file' if root.exists() else 'not there'}; a folder is needed"
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name in _NAMES)
    stored: dict[Split, Path] = {_NAMES[path.name]: path for path in folders}
    if folders and ("train" not in stored or len(stored) < len(folders)):
        found = ", ".join(path.name for path in folders)
        raise ValueError(f"{root} holds {found}; train is needed, and one folder for each other split")
    if "test" not in stored and "validation" in stored:
        stored["test"] = stored.pop("validation")
    stored.setdefault("train", root)
    return stored


def _classes(folder: Path) -> Sequence[str]:
    tops = sorted({_top(path) for path in _wave_paths(folder)})
    return tops if len(tops) > 1 and all((folder / top).is_dir() for top in tops) else ()


def _wave_paths(folder: Path) -> Sequence[str]:
    """Paths relative to `folder`, sorted, at any depth; what is hidden is left out."""
    found: list[str] = []
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(directory).relative_to(folder)
        waves = sorted(name for name in files if name.lower().endswith(".wav") and not name.startswith("."))
        found += [str(here / name) for name in waves]
    return found


def _role(path: str, missing: Sequence[Split]) -> Split:
    """The split of a file of the training set: a tenth for each that is missing; other files move none across."""
    digest = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    tenth = int.from_bytes(digest, "big") * 10 >> 64
    return missing[tenth] if tenth < len(missing) else "train"


def _top(path: str) -> str:
    return Path(path).parts[0]
