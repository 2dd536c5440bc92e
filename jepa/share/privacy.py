"""What a shared folder must not tell: paths of this machine, its name, the user's name, tokens."""

import getpass
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jepa.errors import UserError

REMOVED = "path-not-shared"  # in place of a path; a source of data that reads files still has a root
_PATHS = {("run_dir",), ("data", "root")}  # settings that hold paths, also relative ones
_SEPARATOR = re.compile(r"[/\\]")
_ABSOLUTE = re.compile(r"^(~|/|\\|[A-Za-z]:[/\\]|\.\.?[/\\]|file:)")
# In a sentence a path ends at a space, a quote or punctuation that is followed by a space.
_IN_TEXT = re.compile(r"(?<![\w./:<-])(~[\w-]*/|[A-Za-z]:\\|/)(?=[\w.])[^\s'\"`,;)]*[^\s'\"`,;:.)]")
_TOKEN = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b")


class PrivacyError(UserError, ValueError):
    """A folder that is to be shared holds something private; the message says what and where."""


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without paths of this machine; names on the hub (`hf://...`) stay."""
    return {key: _cleaned(value, (key,)) for key, value in config.items()}


def removed_paths(config: Mapping[str, Any]) -> list[str]:
    """The paths that `without_paths` removes, the longest first."""
    before, after = (set(_texts(tree)) for tree in (config, without_paths(config)))
    return sorted(before - after, key=len, reverse=True)


def without_paths_in_text(text: str, known: list[str]) -> str:
    """A text without the known paths and without anything that looks like an absolute path."""
    for path in known:
        if len(path) > 1 and _SEPARATOR.search(path):
            text = text.replace(path, f"<{REMOVED}>")
    home = str(Path.home())
    if len(home) > 1:
        text = text.replace(home, f"<{REMOVED}>")
    return _IN_TEXT.sub(f"<{REMOVED}>", text)


def cleaned_texts(tree: Any, known: list[str]) -> Any:
    """Plain data with `without_paths_in_text` applied to all its texts, also to its keys."""
    if isinstance(tree, str):
        return without_paths_in_text(tree, known)
    if isinstance(tree, Mapping):
        return {without_paths_in_text(str(key), known): cleaned_texts(value, known) for key, value in tree.items()}
    return [cleaned_texts(one, known) for one in tree] if isinstance(tree, list) else tree


def check_private(folder: Path) -> list[str]:
    """Look for private things in the text files of a folder -> sentences about names that may be harmless words.

    Raises PrivacyError for the home directory and for tokens.
    """
    warnings = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".md", ".yaml", ".txt")):
        text, name = path.read_text(encoding="utf-8", errors="replace"), path.relative_to(folder)
        home = str(Path.home())
        if len(home) > 2 and re.search(rf"{re.escape(home)}(?![\w-])", text):
            raise PrivacyError(f"{name} would tell your home directory; nothing was sent, so please report this")
        if _TOKEN.search(text):
            raise PrivacyError(f"{name} holds what looks like an access token; nothing was sent, so remove it first")
        for what, word in _own_names().items():
            if re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", text):
                warnings.append(f"{name} contains the word '{word}', which is {what}")
    return warnings


def _own_names() -> dict[str, str]:
    """Name of the user and of the machine, unless they are too short or too usual to mean anything."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = ""
    names = {"your user name": user, "the name of this machine": socket.gethostname().partition(".")[0]}
    usual = {"root", "user", "admin", "ubuntu", "localhost"}
    return {what: word for what, word in names.items() if len(word) > 2 and word not in usual}


def _cleaned(value: Any, place: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key: _cleaned(one, (*place, str(key))) for key, one in value.items()}
    if isinstance(value, list):
        return [_cleaned(one, place) for one in value]
    return REMOVED if isinstance(value, str) and _is_path(value, place) else value


def _is_path(text: str, place: tuple[str, ...]) -> bool:
    if text.lower().startswith("hf://"):
        return False
    relative = (
        place[0] in ("data", "start_from") and bool(_SEPARATOR.search(text)) and not re.search(r"[\s{}]", text)
    )  # no prompt
    return place in _PATHS or relative or bool(_ABSOLUTE.match(text))


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _texts(value)
    elif isinstance(tree, list):
        for one in tree:
            yield from _texts(one)
