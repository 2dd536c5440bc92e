"""Benchmarks of one modality on several data sets: train, evaluate, collect results, write the tables."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks import provenance
from jepa import launch

Outcome = dict[str, Any]  # results.json, with the set, the seed and the minutes of everything


def outcome(modality: str, name: str, seed: int, run_dir: Path, settings: Sequence[str]) -> Outcome:
    """Train, evaluate and report once, or resume what the run directory holds."""
    started = time.perf_counter()
    status = launch.main(["--modality", modality, "--run-dir", str(run_dir), f"seed={seed}", *settings])
    if status:
        raise SystemExit(status)
    minutes = (time.perf_counter() - started) / 60
    return {"set": name, "seed": seed, "minutes": minutes, **json.loads((run_dir / "results.json").read_text())}


def source(root: str) -> list[str]:
    """Settings of a set: a folder, or the generated data if there is no root."""
    return ["data.source=folder", f"data.root={root}"] if root else []


def cell(values: Sequence[float | None], spread: bool) -> str:
    """Mean of the numbers that are not None, optionally with their standard deviation."""
    known = [value for value in values if value is not None]
    deviation = f" ± {stdev(known):.2g}" if spread and len(known) > 1 else ""
    return f"{fmean(known):#.3g}{deviation}" if known else ""


def markdown(headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of a table, the first column without a heading."""
    return provenance.table(["", *headings], [[name, *cells] for name, cells in rows.items()]).splitlines()


def parser(doc: str | None, runs: str) -> argparse.ArgumentParser:
    """The common command line."""
    shared = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared.add_argument(
        "--sets", nargs="+", required=True, metavar="NAME[=PATH]", help="data sets: scenes, or a folder"
    )
    shared.add_argument("--seeds", type=int, default=1)
    shared.add_argument("--runs", type=Path, default=Path(runs))
    shared.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    shared.add_argument("overrides", nargs="*", metavar="section.key=value")
    return shared


def write(
    module: str, options: argparse.Namespace, more: Sequence[str], outcomes: list[Outcome], lines: list[str]
) -> None:
    """Write the tables and the numbers with the command that repeats them, without paths. more: further words of it."""
    named = [f"{text.partition('=')[0]}=PATH" if "=" in text else text for text in options.sets]
    words = ["--sets", *named, *more, "--seeds", str(options.seeds), "--json", str(options.json), *options.overrides]
    source = provenance.provenance(module, words)
    page = "\n".join([provenance.heading(source), f"{options.seeds} seed(s).", "", *lines])
    provenance.write(options.json, {**source, "runs": outcomes}, page)
