"""Time per FLOP of the video recipe relative to the image recipe; a high ratio shows work without counted FLOPs.

`python -m benchmarks.step_cost --json benchmarks/results/step_cost.json` trains both recipes in turn on generated data
and compares seconds per FLOP, loading included.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import torch

from benchmarks import provenance
from jepa.config.recipes import read_recipe
from jepa.cost.flops import run_flops
from jepa.distributed import World
from jepa.launch import resolve
from jepa.train import train
from jepa.training.log import read_metrics

_SMALL = {
    "image": ["data.scenes.train=500", "data.scenes.validation=50", "data.scenes.test=50"],
    "video": ["data.scenes.train=192", "data.scenes.validation=48", "data.scenes.test=48"],
}
_WARM_UP = 10  # steps, not measured


def gigaflops(modality: str, steps: int) -> float:
    """Billions of floating-point operations per second of a short training run after the warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*_SMALL[modality], f"steps={steps}", f"log_every={_WARM_UP}", f"run_dir={folder}/run"]
        config, built = resolve(modality, read_recipe(modality), [*settings, "checkpoint_every=1000000"])
        train(config, built, World(0, 1, torch.device("cpu")))
        lines = read_metrics(config.run_dir)
    rate: float = run_flops(config, built) / steps
    seconds: float = lines[-1]["seconds"] - lines[0]["seconds"]
    return rate * (steps - _WARM_UP) / seconds / 1e9


def main() -> None:
    """Measure in turn, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    options = parser.parse_args()
    rounds = [{name: gigaflops(name, options.steps) for name in _SMALL} for _ in range(options.rounds)]
    ratios = [one["image"] / one["video"] for one in rounds]
    rows = [
        [str(number), f"{one['image']:.1f}", f"{one['video']:.1f}", f"{ratio:.2f}"]
        for number, (one, ratio) in enumerate(zip(rounds, ratios, strict=True), start=1)
    ]
    headings = ["round", "images, GFLOP/s", "videos, GFLOP/s", "time per FLOP, videos / images"]
    spread = f"Median {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})."
    source = provenance.provenance("benchmarks.step_cost")
    page = f"{provenance.heading(source)}\n\n{provenance.table(headings, rows)}\n\n{spread}"
    provenance.write(options.json, {**source, "rounds": rounds}, page)


if __name__ == "__main__":
    main()
