"""Names in Markdown pages that must exist: links, files, modules, members of modules and classes, settings, recipes."""

import importlib
import re
from functools import cache
from pathlib import Path

from jepa.config.recipes import recipes

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = ("jepa", "modalities", "tests", "configs", "benchmarks", "docs", "examples", "slurm", ".ci")
SECTIONS = "data|model|loss|optim|compute|evaluate"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
PATH = re.compile(rf"(?<![\w./-])(?:(?:{'|'.join(CODE)})/[\w./-]+|[\w/]+\.py)(?![\w(*{{])")
DOTTED = re.compile(r"(?<![\w./:-])(?:jepa|modalities|benchmarks)(?:\.\w+)+(?![\w/])")
MEMBER = re.compile(r"(?<![\w.])([A-Z]\w+)\.(\w+)")
SETTING = re.compile(rf"(?<![\w.])(?:{SECTIONS})\.(\w+)(?![\w(])")
RECIPE = re.compile(r"--config ([\w/.-]+)")
PLACEHOLDERS = {
    *("jepa.modalities", "tides/jepa_tides/modality.py"),  # an entry-point group; a file that the reader writes
    *(
        "fused",
        "JEPA.guess",
        "benchmarks.learning",
        "bnads",
        "peek_lr",
    ),  # removed and former names; misspelt ones in error messages
    *("py", "json", "NAME", "FILE", "video/NAME", "large"),
}


def unknown_names(page: Path) -> list[str]:
    """Names that the repository does not have; only links and code count, and of Python blocks only dotted names."""
    text = page.read_text()
    blocks = BLOCK.findall(text)
    spans = "\n".join(SPAN.findall(BLOCK.sub("", text)))
    shell = "\n".join([spans, *(block for language, block in blocks if language != "python")])
    code = "\n".join([spans, *(block for _, block in blocks)])
    unknown = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    unknown += [path for path in PATH.findall(spans) if not _path_exists(path, page)]
    unknown += [name for name in DOTTED.findall(code) if not _resolves(name)]
    unknown += [f"{owner}.{member}" for owner, member in MEMBER.findall(code) if not _is_member(owner, member)]
    unknown += [key for key in SETTING.findall(shell) if not re.search(rf"^    {key}: ", _source(), re.MULTILINE)]
    unknown += [name for name in RECIPE.findall(shell) if name not in recipes() and not (ROOT / name).exists()]
    return [name for name in unknown if name not in PLACEHOLDERS]


def _path_exists(path: str, page: Path) -> bool:
    """Whether a path exists below the root, beside the page or, unless it starts at the root, anywhere."""
    if (ROOT / path).exists() or (page.parent / path).exists():
        return True
    starts_at_root = path.startswith(tuple(f"{folder}/" for folder in CODE))
    return not starts_at_root and any(file.as_posix().endswith(f"/{path}") for file in _files())


def _resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parent, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return bool(parent) and _resolves(parent) and hasattr(importlib.import_module(parent), attribute)
    return True


def _is_member(owner: str, member: str) -> bool:
    """Whether a file that defines a class `owner` has the word `member`, or no file defines it."""
    texts = [text for text in map(_read, _files()) if re.search(rf"^class {owner}\b", text, re.MULTILINE)]
    return not texts or any(re.search(rf"\b{member}\b", text) for text in texts)


@cache
def _files() -> tuple[Path, ...]:
    return tuple(path for folder in CODE for path in (ROOT / folder).rglob("*") if path.is_file())


@cache
def _read(path: Path) -> str:
    return path.read_text() if path.suffix == ".py" else ""


@cache
def _source() -> str:
    return "\n".join(map(_read, _files()))
