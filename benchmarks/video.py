"""The recipe of videos on the embedded world that moves and on folders of videos: how good it is beside its floors.

python -m benchmarks.video --sets scenes weizmann4=PATH --seeds 1 --json benchmarks/results/video.json [key=value ...]

A run directory each below --runs, so that what was interrupted goes on; the test split is scored once a run.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks.learning_table import commit, hardware
from jepa import launch

COLUMNS = {
    "jepa": "trained",
    "random_init": "untrained",
    "raw_input": "raw clip",
    "middle_frame": "middle frame",
    "motion_energy": "motion energy",
    "chance": "chance",
}


def outcome(name: str, root: str, seed: int, runs: Path, overrides: list[str]) -> dict[str, Any]:
    """Train, evaluate and report once -> results.json, with the minutes that all of it took."""
    run_dir = runs / f"{name}-{seed}"
    source = ["data.source=folder", f"data.root={json.dumps(root)}"] if root else []
    settings = [*source, f"seed={seed}", *overrides]
    started = time.perf_counter()
    status = launch.main(["--modality", "video", "--run-dir", str(run_dir), *settings])
    if status:
        raise SystemExit(status)
    minutes = (time.perf_counter() - started) / 60
    return {"set": name, "seed": seed, "minutes": minutes, **json.loads((run_dir / "results.json").read_text())}


def table(outcomes: list[dict[str, Any]]) -> list[str]:
    """Rows of all tasks of one set, means over seeds and their standard deviation for the trained encoder."""
    first = outcomes[0]["tasks"]
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for task, row in first.items():
        cells = []
        for column in COLUMNS:
            values = [one["tasks"][task].get(column) for one in outcomes]
            known = [value for value in values if value is not None]
            spread = f" ± {stdev(known):.2g}" if column == "jepa" and len(known) > 1 else ""
            cells.append(f"{fmean(known):#.3g}{spread}" if known else "")
        lines.append(f"| {task} ({row['metric']}) | {' | '.join(cells)} |")
    if "forecast" in outcomes[0]:
        lines += ["", *_forecast([one["forecast"] for one in outcomes])]
    return lines


def _forecast(forecasts: list[dict[str, Any]]) -> list[str]:
    courses = list(forecasts[0]["errors"])
    lines = [f"| slots ahead | {' | '.join(courses)} |", "|---" * (len(courses) + 1) + "|"]
    for place, horizon in enumerate(forecasts[0]["horizons"]):
        means = [fmean(one["errors"][course][place] for one in forecasts) for course in courses]
        lines.append(f"| {horizon} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return lines


def main() -> None:
    """Run, print Markdown tables and write them and the same numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME[=PATH]", help="scenes, or a folder of videos")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-video"))
    parser.add_argument("--json", type=Path, required=True, help="a .md of the same name is written beside it")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    asked = parser.parse_intermixed_args()
    found: list[dict[str, Any]] = []
    lines: list[str] = []
    for text in asked.sets:
        name, _, root = text.partition("=")
        of_set = [outcome(name, root, seed, asked.runs, asked.overrides) for seed in range(asked.seeds)]
        found += of_set
        samples, minutes = of_set[0]["samples"], fmean(one["minutes"] for one in of_set)
        tested = max(row["test_samples"] for row in of_set[0]["tasks"].values())
        heading = f"**{name}**: {samples:,} clips seen, {minutes:.1f} minutes with evaluation, {tested} test clips"
        lines += [heading, "", *table(of_set), ""]
    print("\n".join(lines))
    named = [f"{text.partition('=')[0]}=PATH" if "=" in text else text for text in asked.sets]
    options = ["--sets", *named, "--seeds", str(asked.seeds), "--json", str(asked.json), *asked.overrides]
    told = {"command": f"python -m benchmarks.video {shlex.join(options)}", "hardware": hardware(), "git": commit()}
    asked.json.write_text(json.dumps({**told, "runs": found}, indent=1) + "\n")
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}, commit {told['git']}"
    heading = f"`{told['command']}`\n\n{told['hardware']['cpu']}, {threads}, {asked.seeds} seed(s)."
    asked.json.with_suffix(".md").write_text(f"{heading}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
