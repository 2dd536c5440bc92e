"""The ways to write the path of one file."""

import posixpath
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modalities.storage.packed import PackedStrings

HASH_PARTS = 16  # a power of two


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


class FileHashes(NamedTuple):
    """Hashes, valid in this process: of the files that paths name, and of the paths as written.

    64 bits each, where a set of names takes a hundred bytes or more. It is one array if all paths are plain.
    """

    files: NDArray[np.int64]
    written: NDArray[np.int64]

    def rows(self, part: int) -> NDArray[np.int64]:
        """The rows of one of HASH_PARTS parts, to sort less at a time; all rows of one file are in the same part."""
        return np.flatnonzero(self.files.view(np.uint8)[::8] & (HASH_PARTS - 1) == part)

    @classmethod
    def joined(cls, parts: Sequence["FileHashes"]) -> "FileHashes":
        """The hashes of several lists, one after another."""
        if len(parts) == 1:
            return parts[0]
        files = np.concatenate([part.files for part in parts])
        plain = all(part.written is part.files for part in parts)
        return cls(files, files if plain else np.concatenate([part.written for part in parts]))


def file_hashes(paths: PackedStrings, file_key: FileKeys) -> FileHashes:
    """The hashes of paths, none of which has a line break."""
    files, written, first = np.empty(len(paths), np.int64), None, 0
    for part in paths.batches():
        rows = slice(first, first + len(part))
        own = np.fromiter(map(hash, part), np.int64, len(part))
        if not _all_plain(part) and written is None:
            written = files.copy()
        files[rows] = own if _all_plain(part) else np.fromiter(map(hash, map(file_key, part)), np.int64, len(part))
        if written is not None:
            written[rows] = own
        first += len(part)
    return FileHashes(files, files if written is None else written)


def _all_plain(paths: Sequence[str]) -> bool:
    """Whether these paths are their own keys."""
    text = "\n".join(["", *paths])
    return text.isascii() and not any(odd in text for odd in ("//", "/.", "\n.", "\n/"))


def one_spelling(
    paths: PackedStrings, labels: NDArray[np.int32], hashes: FileHashes
) -> tuple[PackedStrings, NDArray[np.int32]]:
    """Paths and labels with each path as first written, without rows that repeat a row in another spelling."""
    if hashes.written is hashes.files:
        return paths, labels
    _, number, spellings = np.unique(hashes.files, return_inverse=True, return_counts=True)
    order = np.lexsort((hashes.written, number))
    fresh = (np.diff(number[order]) == 0) & (np.diff(hashes.written[order]) != 0)
    several = np.zeros(len(spellings), np.bool_)
    several[number[order][1:][fresh]] = True
    rows = np.flatnonzero(several[number])
    if not len(rows):
        return paths, labels
    first, renamed = dict[int, str](), dict[int, str]()
    for row, file in zip(rows.tolist(), number[rows].tolist(), strict=True):
        renamed[row] = first.setdefault(file, paths[row])
    known = {(renamed[row], int(labels[row])) for row in renamed if paths[row] == renamed[row]}
    kept = np.ones(len(paths), np.bool_)
    for row, path in renamed.items():
        same = path, int(labels[row])
        if paths[row] != path:
            kept[row] = same not in known
            known.add(same)
    spelled = PackedStrings(renamed.get(row, path) for row, path in enumerate(paths) if kept[row])
    return spelled, labels[kept]


def distinct(hashes: NDArray[np.int64]) -> int:
    """The number of different hashes."""
    ordered = np.sort(hashes)
    return int(np.count_nonzero(np.diff(ordered))) + bool(len(ordered))


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
