"""`jepa compare SOURCE...`: one table of several encoders on the same data."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from jepa.compare.run import Comparison, compare
from jepa.console import CONSOLE, command_parser, printer, shown
from jepa.errors import exit_status
from jepa.evaluate.__main__ import add_options
from jepa.evaluate.request import Request
from jepa.evaluate.table import caveat_lines, error_line, task_table

_OVERRIDE = re.compile(r"[a-z_]+(\.\w+)+=")


def main(argv: Sequence[str] | None = None) -> int:
    """Compare from the command line -> exit status; 1 if a source could not be evaluated."""
    parser = command_parser(
        "compare",
        "Evaluate several encoders on the same data and splits under one protocol, each with its own resolution and "
        "pixel statistics, and print one table. Sources are those of `jepa evaluate`, or results.json of evaluations "
        "that exist. Started again, it evaluates only what has no results yet.",
        "runs/demo timm:vit_small_patch14_dinov2.lvd142m data.root=~/photos",
    )
    add_options(parser)
    parser.add_argument("--html", action="store_true", help="also write compare.html into the folder of the results")
    parser.add_argument("--again", action="store_true", help="evaluate also sources that have results")
    parser.add_argument("sources", nargs="+", help="sources of encoders, and settings such as data.root=DIR for all")
    return exit_status(lambda: _compare(parser, parser.parse_intermixed_args(argv)))


def _compare(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    overrides = [text for text in arguments.sources if _OVERRIDE.match(text)]
    sources = [text for text in arguments.sources if not _OVERRIDE.match(text)]
    if not sources:
        parser.error("name at least one source of an encoder")
    request = Request(
        source="",
        tasks=arguments.task,
        layers=overrides,
        modality=arguments.modality,
        trust=arguments.trust,
        output=arguments.output,
    )
    comparison = compare(sources, request, again=arguments.again)
    print_comparison(comparison)
    if arguments.html:
        from jepa.compare.page import write_comparison  # draws with matplotlib, which is slow to import

        CONSOLE.print(f"page: {shown(write_comparison(comparison, describe))}")
    CONSOLE.print(f"results: {shown(comparison.folder / 'results.json')}")
    return 1 if comparison.failed else 0


def print_comparison(comparison: Comparison) -> None:
    """Print a row for each task and a column for each source, then what the sources are, and remarks."""
    tasks, names = comparison.tasks, list(comparison.results)
    console = printer(width=None if printer().is_terminal else 60 + 24 * len(names))
    headings = {name: shown(name) for name in names} | {"chance": "chance"}
    console.print(task_table(tasks, "frozen features of each encoder", headings))
    for name, found in comparison.results.items():
        console.print(shown(f"{name}: {describe(found)}"))
    for line in filter(None, (error_line(tasks), *caveat_lines(tasks), *comparison.notes())):
        console.print(shown(line))


def describe(found: dict[str, Any]) -> str:
    """One line on a source: what it is, its size, its inputs, and its collapse signs."""
    network, signs = found.get("network", {}), found.get("collapse", {})
    size = network.get("image_size")
    pixels = " x ".join(map(str, size)) if isinstance(size, list) else size
    facts = [
        str(found.get("source", "")),
        f"step {found['steps']:,}" if found.get("steps") else "",
        f"{network['parameters'] / 1e6:.3g} million parameters" if "parameters" in network else "",
        f"{network['dimensions']} dimensions" if "dimensions" in network else "",
        f"{' x '.join(map(str, network['grid']))} tokens" if "grid" in network else "",
        f"{pixels} pixels" if pixels else "",
        f"own pooling: {network['own_pooling']}" if "own_pooling" in network else "",
        f"RankMe {signs['rankme']:.1f}, untrained {signs['rankme_random_init']:.1f}" if signs else "",
    ]
    return ", ".join(filter(None, facts))
