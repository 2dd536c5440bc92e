"""Whole runs on several sets of data, for benchmarks of one modality: train, evaluate, gather, write the tables."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks import provenance
from jepa import launch

Outcome = dict[str, Any]  # of results.json, with the set, the seed and the minutes that all of it took


def outcome(modality: str, name: str, seed: int, run_dir: Path, settings: Sequence[str]) -> Outcome:
    """Train, evaluate and report once; what was done before is found in the run directory."""
    started = time.perf_counter()
    status = launch.main(["--modality", modality, "--run-dir", str(run_dir), f"seed={seed}", *settings])
    if status:
        raise SystemExit(status)
    minutes = (time.perf_counter() - started) / 60
    return {"set": name, "seed": seed, "minutes": minutes, **json.loads((run_dir / "results.json").read_text())}


def source(root: str) -> list[str]:
    """Settings for a set: the embedded world where there is no root, else a folder."""
    return ["data.source=folder", f"data.root={json.dumps(root)}"] if root else []


def cell(values: Sequence[float | None], spread: bool) -> str:
    """Mean of the numbers there are, perhaps with their standard deviation."""
    known = [value for value in values if value is not None]
    deviation = f" ± {stdev(known):.2g}" if spread and len(known) > 1 else ""
    return f"{fmean(known):#.3g}{deviation}" if known else ""


def markdown(headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of a table, the first column without a heading."""
    return provenance.table(["", *headings], [[name, *cells] for name, cells in rows.items()]).splitlines()


def parser(doc: str | None, runs: str) -> argparse.ArgumentParser:
    """The command line that these benchmarks share."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--sets", nargs="+", required=True, metavar="NAME[=PATH]", help="scenes, or a folder")
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--runs", type=Path, default=Path(runs))
    made.add_argument("--json", type=Path, required=True, help="a .md of the same name is written beside it")
    made.add_argument("overrides", nargs="*", metavar="section.key=value")
    return made


def write(
    module: str, asked: argparse.Namespace, options: Sequence[str], found: list[Outcome], lines: list[str]
) -> None:
    """Write the tables and the numbers with the command that repeats them; paths are left out."""
    named = [f"{text.partition('=')[0]}=PATH" if "=" in text else text for text in asked.sets]
    words = ["--sets", *named, *options, "--seeds", str(asked.seeds), "--json", str(asked.json), *asked.overrides]
    source = provenance.provenance(module, words)
    page = "\n".join([provenance.heading(source), f"{asked.seeds} seed(s).", "", *lines])
    provenance.write(asked.json, {**source, "runs": found}, page)
