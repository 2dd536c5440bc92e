"""The method's central claim by one flag: predict representations or pixels, same encoder, masks and budget.

    python benchmarks/latent_vs_pixels.py --seeds 3 --json benchmarks/results/latent_vs_pixels.json [section.key=value
    ...]

Both targets run the same command but for `target=`, for the same steps (`--budget steps`) or, the masked autoencoder
being cheaper a step, for the same seconds (`--budget seconds`: its steps are raised by the ratio of speeds measured
at the start).
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

TARGETS = ("latent", "pixels")


def run(target: str, seed: int, steps: int, overrides: list[str], folder: Path) -> dict[str, Any]:
    """One run as a user would start it -> its results.json and last line of metrics."""
    run_dir = folder / f"{target}-{seed}-{steps}"
    settings = [f"target={target}", f"seed={seed}", f"steps={steps}", *overrides]
    command = [sys.executable, "-m", "jepa.launch", "--modality", "image", "--run-dir", str(run_dir), *settings]
    subprocess.run(command, check=True)
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    path = run_dir / "results.json"
    return {"target": target, "seed": seed, "last": last, **(json.loads(path.read_text()) if path.exists() else {})}


def pixel_steps(steps: int, overrides: list[str], folder: Path) -> int:
    """Steps of the masked autoencoder that take as long as `steps` of the JEPA, from 60 steps of each."""
    speeds = []
    for target in TARGETS:
        trial = run(target, 999, 60, [*overrides, "evaluate.enabled=false"], folder)
        speeds.append(trial["last"]["samples_per_second"])
    return round(steps * speeds[1] / speeds[0])


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: a row a task, mean and standard deviation over seeds."""
    lines = ["| task | metric | latent | pixels | untrained | raw input | chance |", "|---|---|---|---|---|---|---|"]
    for task, first in runs[0]["tasks"].items():
        cells = []
        for target in TARGETS:
            values = [one["tasks"][task]["jepa"] for one in runs if one["target"] == target]
            spread = f" +- {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}")
        arrow = "higher is better" if first["higher_is_better"] else "lower is better"
        floors = [f"{first[name]:.3f}" for name in ("random_init", "raw_input", "chance")]
        lines.append(f"| {task} | {first['metric']}, {arrow} | {' | '.join(cells + floors)} |")
    for target in TARGETS:
        mine = [one for one in runs if one["target"] == target]
        seconds = mean(one["train_seconds"] for one in mine)
        rank = mean(one["collapse"]["rankme"] for one in mine)
        run_length = f"{mine[0]['steps']} steps, {mine[0]['samples']} samples"
        lines.append(f"\n{target}: {run_length}, {seconds:.0f} s, RankMe {rank:.1f}")
    return "\n".join(lines)


def main() -> None:
    """Run both targets for every seed, print the table and write it beside the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", choices=("steps", "seconds"), default="steps")
    parser.add_argument("--json", type=Path, required=True, help="a .md of the same name is written beside it")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = dict.fromkeys(TARGETS, arguments.steps)
        if arguments.budget == "seconds":
            steps["pixels"] = pixel_steps(arguments.steps, arguments.overrides, folder)
        runs = [
            run(target, seed, steps[target], arguments.overrides, folder)
            for seed in range(arguments.seeds)
            for target in TARGETS
        ]
    command = f"python benchmarks/latent_vs_pixels.py {' '.join(sys.argv[1:])}"
    text = f"`{command}` on {platform.machine()}, equal {arguments.budget}\n\n{table(runs)}\n"
    print(text)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(
        json.dumps({"command": command, "budget": arguments.budget, "runs": runs}, indent=1) + "\n"
    )
    arguments.json.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
