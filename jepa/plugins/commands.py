"""`jepa modalities` and `jepa new-modality`."""

import ast
import keyword
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from jepa.config import ConfigError
from jepa.console import CONSOLE, command_parser, printer, shown
from jepa.disk import writing
from jepa.errors import exit_status
from jepa.modality import CONTRACT
from jepa.plugins.registry import GROUP, installed, names


def modalities(argv: Sequence[str] | None = None) -> int:
    """`jepa modalities` -> exit status: 0 even if some modalities cannot be loaded, since they are listed too."""
    description = f'List the modalities that installed packages declare under "{GROUP}".'
    command_parser("modalities", description, "").parse_args(argv)
    console = printer()
    console = console if console.is_terminal else printer(width=10_000)  # unbroken lines for grep
    table = Table(box=None, pad_edge=False, title_justify="left", title=f"contract version {CONTRACT}")
    for title in ("modality", "class", "package", "file"):
        table.add_column(title, overflow="fold")
    found = installed()
    for one in found:
        place = shown(one.file) if one.file else Text("cannot be loaded, see below", "bold red")
        table.add_row(shown(one.name), shown(one.value), shown(one.package), place)
    console.print(table)
    for one in found:
        if one.error:
            console.print(shown(one.error), soft_wrap=True)
    return 0


_TEMPLATE = Path(__file__).parent / "template"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_modality(argv: Sequence[str] | None = None) -> int:
    """`jepa new-modality NAME [--into FOLDER]` -> exit status."""
    parser = command_parser("new-modality", "Write a package with a working modality to adapt to your data.", "tides")
    parser.add_argument("name", help="name of the modality, such as tides or point-grid")
    parser.add_argument("--into", default=".", help="folder for the package's folder (default: .)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _write(arguments.name, Path(arguments.into)))


def write_package(name: str, into: Path) -> Path:
    """Write the package -> its folder; raises ConfigError if the name is invalid or taken, or the folder exists."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is not a valid name; use lower-case letters, digits and single hyphens")
    words = name.split("-")
    class_name = "".join(map(str.title, words))
    if _is_used(class_name):
        raise ConfigError(f"'{name}' needs a class {class_name}, but the template uses that name already")
    if name in names():
        raise ConfigError(f"modality '{name}' is already installed, see `jepa modalities`")
    folder = into / name
    if folder.exists():
        raise ConfigError(f"{folder} exists; nothing was written")
    partial = into / f"{name}.partial"
    if partial.exists():
        shutil.rmtree(partial)  # of a command that failed
    replacements = {"template-name": name, "template_name": "_".join(words), "TemplateName": class_name}
    for source in sorted(_TEMPLATE.rglob("*")):
        path = source.relative_to(_TEMPLATE).as_posix()
        if source.is_file() and source.suffix != ".pyc" and not path.startswith("."):  # no caches of tools
            target = partial / _replaced(path, replacements)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_replaced(source.read_text(encoding="utf-8"), replacements), encoding="utf-8")
    partial.rename(folder)
    return folder


def _is_used(class_name: str) -> bool:
    """Whether Python or the template already uses that name, or that of its config class."""
    nodes = list(ast.walk(ast.parse((_TEMPLATE / "jepa_template_name" / "modality.py").read_text(encoding="utf-8"))))
    taken = {node.id for node in nodes if isinstance(node, ast.Name)} | {*keyword.kwlist}
    taken |= {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.alias)}
    return not taken.isdisjoint({class_name, f"{class_name}Config"})


def _replaced(text: str, replacements: dict[str, str]) -> str:
    for placeholder, name in replacements.items():
        text = text.replace(placeholder, name)
    return text


def _write(name: str, into: Path) -> int:
    with writing(into / name):
        folder = write_package(name, into)
    for line in (f"wrote {folder}", f"pip install -e {folder}", f"pytest {folder}", f"jepa launch --modality {name}"):
        CONSOLE.print(shown(line))
    return 0
