"""The ways to write the path of one file."""

import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class FileKeys:
    """Maps all ways to write the path of a file to one text. Paths are relative to `folder` or absolute.

    They may differ in ./, //, ../ and Unicode normalisation, and in being relative or absolute. Links are not followed,
    except in the path of `folder`: that would take a disk access per file.
    """

    def __init__(self, folder: Path) -> None:
        folders = (folder.absolute(), folder.resolve())
        self._absolute, self._resolved = (f"{path.as_posix().rstrip('/')}/" for path in folders)

    def __call__(self, name: str) -> str:
        if not name.isascii():
            name = unicodedata.normalize("NFC", name)
        if "//" in name or "/." in name or name[:1] == ".":
            name = posixpath.normpath(name).replace("//", "/")  # POSIX keeps two slashes at the start
            if name.startswith("../"):
                name = posixpath.normpath(self._resolved + name)
        if name[:1] != "/":
            return name
        return name.removeprefix(self._absolute).removeprefix(self._resolved)


def one_spelling(rows: list[tuple[str, int]], file_key: FileKeys) -> list[tuple[str, int]]:
    """Rows with the path of each file as first written, without those that repeat a row in another spelling."""
    if len(distinct(file_key(path) for path, _ in rows)) == len(distinct(path for path, _ in rows)):
        return rows
    first = dict[str, str]()
    written = [(first.setdefault(file_key(path), path), label) for path, label in rows]
    known, kept = {row for row, same in zip(rows, written, strict=True) if row == same}, []
    for row, same in zip(rows, written, strict=True):
        if row == same or same not in known:
            known.add(same)
            kept.append(same)
    return kept


def distinct(names: Iterable[str]) -> NDArray[np.int64]:
    """Hashes of all different names: 64 bits each, where a set of names takes a hundred bytes or more."""
    return np.unique(np.fromiter(map(hash, names), np.int64))


def existing_file(folder: Path, name: str) -> Path:
    """The file with this name; if there is none, one whose name differs in Unicode normalisation alone.

    macOS stores decomposed names (NFD); lists usually hold composed ones (NFC).
    """
    path = folder / name
    if name.isascii() or _exists(path):
        return path
    found = folder
    for part in Path(name).parts:
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        found = next((found / form for form in forms if _exists(found / form)), found / part)
    return found if _exists(found) else path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False
