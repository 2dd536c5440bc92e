"""The ways to write the path of one file."""

import posixpath
import unicodedata
from pathlib import Path


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
            path = self._resolved + name if name.startswith("../") else name
            name = posixpath.normpath(path).replace("//", "/")  # POSIX keeps two slashes at the start
        if name[:1] != "/":
            return name
        return name.removeprefix(self._absolute).removeprefix(self._resolved)


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
