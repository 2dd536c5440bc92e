"""`jepa modalities`: what is installed, from where, and what cannot be used and why."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from jepa.modality import CONTRACT
from jepa.registry import GROUP, installed


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa modalities` -> exit status: 0 also where some cannot be used, as the list is what was asked for."""
    argparse.ArgumentParser(
        prog="jepa modalities", description=f'List what installed packages declare under "{GROUP}".'
    ).parse_args(argv)
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
