"""`jepa modalities` and `jepa new-modality`."""

import ast
import keyword
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jepa.config import ConfigError
from jepa.console import CONSOLE, command_parser
from jepa.errors import exit_status
from jepa.modality import CONTRACT
from jepa.plugins.registry import GROUP, installed, names


def modalities(argv: Sequence[str] | None = None) -> int:
    """`jepa modalities` -> exit status: 0 also where some cannot be used, as the list is what was asked for."""
    description = f'List the modalities that installed packages declare under "{GROUP}".'
    command_parser("modalities", description, "").parse_args(argv)
    console = Console()
    console = console if console.is_terminal else Console(width=10_000)  # whole lines for those who search them
    table = Table(box=None, pad_edge=False, title_justify="left", title=f"contract version {CONTRACT}")
    for title in ("modality", "class", "package", "file"):
        table.add_column(title, overflow="fold")
    found = installed()
    for one in found:
        table.add_row(one.name, one.value, one.package, one.place or "[bold red]cannot be used, see below[/]")
    console.print(table, highlight=False)
    for one in found:
        if one.failure:
            console.print(one.failure, highlight=False, markup=False, soft_wrap=True)
    return 0


_TEMPLATE = Path(__file__).parent / "template"


_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_modality(argv: Sequence[str] | None = None) -> int:
    """`jepa new-modality NAME [--into FOLDER]` -> exit status."""
    parser = command_parser("new-modality", "Write a package with a working modality, to change into yours.", "tides")
    parser.add_argument("name", help="name of the modality, such as tides or point-grid")
    parser.add_argument("--into", default=".", help="folder for the package's folder (default: .)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _write(arguments.name, Path(arguments.into)))


def write_package(name: str, into: Path) -> Path:
    """Write the package -> its folder; raises ConfigError where the name or the place is taken, or is none."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name of a modality; use lower-case letters, digits and single hyphens")
    words = name.split("-")
    spelt = {"template-name": name, "template_name": "_".join(words), "TemplateName": "".join(map(str.title, words))}
    if _is_used(spelt["TemplateName"]):
        raise ConfigError(
            f"'{name}' would name a class {spelt['TemplateName']}, which its module uses for another thing"
        )
    if name in names():
        raise ConfigError(f"a modality '{name}' is installed already (`jepa modalities` tells from where)")
    folder = into / name
    if folder.exists():
        raise ConfigError(f"{folder} is there already; nothing was written")
    for source in sorted(_TEMPLATE.rglob("*")):
        place = source.relative_to(_TEMPLATE)
        if source.is_file() and source.suffix != ".pyc" and not place.as_posix().startswith("."):  # caches of tools
            target = folder / _named(place.as_posix(), spelt)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_named(source.read_text(encoding="utf-8"), spelt), encoding="utf-8")
    return folder


def _is_used(class_name: str) -> bool:
    """Whether Python or the template already has that name, or that of its config."""
    nodes = list(ast.walk(ast.parse((_TEMPLATE / "jepa_template_name" / "modality.py").read_text(encoding="utf-8"))))
    taken = {node.id for node in nodes if isinstance(node, ast.Name)} | {*keyword.kwlist}
    taken |= {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.alias)}
    return not taken.isdisjoint({class_name, f"{class_name}Config"})


def _named(text: str, spelt: dict[str, str]) -> str:
    for placeholder, name in spelt.items():
        text = text.replace(placeholder, name)
    return text


def _write(name: str, into: Path) -> int:
    try:
        folder = write_package(name, into)
    except OSError as error:
        raise ConfigError(f"the package cannot be written: {error}") from error
    for line in (f"wrote {folder}", f"pip install -e {folder}", f"pytest {folder}", f"jepa launch --modality {name}"):
        CONSOLE.print(line, highlight=False, markup=False)
    return 0
