"""Cost of a training step of small images: a masked autoencoder, pixels with two crops and VICReg, and latents.

    python -m benchmarks.arms_cost --data FOLDER --json benchmarks/results/arms_cost.json [--against CHECKOUT]

Images of 32 pixels in patches of 4, the recipe's networks, batches of 16, one thread. Counts CPU seconds, loading apart
from the step, as other programs may run. --against: the same of another checkout of this project, in turn.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.steps.cases import Ours

_SIZES = ("run_dir=unused", "data.image_size=32", "data.patch_size=4", "data.source=folder")
_ONE_CROP = ("data.views=1", "data.mask_sets=1", "loss.regulariser=none", "loss.invariance=0", "model.projector=0")
ARMS = {
    "masked autoencoder": ("{predict: pixels}", "target=pixels", _ONE_CROP),
    "pixels, two crops, VICReg": ("{predict: pixels}", "target=pixels", ()),
    "latents, two crops, VICReg": ("{predict: latent}", "curriculum={pixel_weight: 0, latent_from: 0}", ()),
}
_COLUMNS = ("loading", "step", "system")
Costs = dict[str, list[list[float]]]  # by checkout, then by round and column


def worker(data: Path) -> None:
    """Answer every line (name of an arm, number of steps) with the milliseconds of a sample: loading, step, system."""
    torch.set_num_threads(1)
    if find_spec("jepa.training.memory"):  # later than some checkouts
        from jepa.training.memory import keep_freed_memory

        keep_freed_memory(torch.device("cpu"))
    arms = {name: _Arm(name, data) for name in ARMS}
    for line in sys.stdin:
        name, steps = json.loads(line)
        print(json.dumps(arms[name].measure(steps)), flush=True)


class _Arm:
    """The steps of an arm, with loading."""

    def __init__(self, name: str, data: Path) -> None:
        from jepa.config.recipes import read_recipe
        from jepa.data import TrainingBatches, open_split
        from jepa.distributed import World
        from jepa.launch import resolve
        from jepa.training.checks import batch_order

        stages, former, extra = ARMS[name]
        recipe = read_recipe("image")
        spelling = f"stages=[{stages}]" if "stages" in recipe else former
        config, modality = resolve("image", recipe, [*_SIZES, f"data.root={data}", spelling, *extra])
        order = batch_order(config, modality, World(0, 1, torch.device("cpu")))
        self.batches = TrainingBatches(modality, open_split(modality, "train"), order, config.data.max_bad_fraction)
        self.size, self.number = config.optim.batch_size, 0
        self.ours = Ours(config, modality, self._load())
        self.measure(3)

    def _load(self) -> Any:
        self.number += 1
        return self.batches[self.number]

    def measure(self, steps: int) -> list[float]:
        """Milliseconds a sample: loading, step, and the system's share of both."""
        seconds = dict.fromkeys(_COLUMNS, 0.0)
        for _ in range(steps):
            with _counted(seconds, "loading"):
                self.ours.batch = self._load()
            with _counted(seconds, "step"):
                self.ours.step()
        return [1e3 * seconds[column] / steps / self.size for column in _COLUMNS]


@contextmanager
def _counted(seconds: dict[str, float], name: str) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    yield
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    seconds[name] += after.ru_utime - before.ru_utime + system
    seconds["system"] += system


class _Checkout:
    """A worker on the code of a checkout."""

    def __init__(self, root: Path, data: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--data", str(data), "--worker"]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, arm: str, steps: int) -> list[float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([arm, steps]), file=self.process.stdin, flush=True)
        measured: list[float] = json.loads(self.process.stdout.readline())
        return measured


def main() -> None:
    """Measure in turn, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images by class in train/")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps of an arm in a round")
    parser.add_argument("--json", type=Path, help="result; a .md of the same name is written beside it")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.data)
        return
    roots = {"before": options.against} if options.against else {}
    roots["now"] = Path(__file__).resolve().parent.parent
    checkouts = {name: _Checkout(root, options.data) for name, root in roots.items()}
    costs: dict[str, Costs] = {}
    for _ in range(options.rounds):
        for arm in ARMS:
            for name, checkout in checkouts.items():
                costs.setdefault(arm, {}).setdefault(name, []).append(checkout.measure(arm, options.steps))
    page = _markdown(costs)
    print(page)
    if options.json:
        source = provenance.provenance("benchmarks.arms_cost")
        provenance.write(options.json, {**source, "milliseconds": costs}, f"{provenance.heading(source)}\n\n{page}")


def _markdown(costs: Any) -> str:
    rows = []
    for arm, by_checkout in costs.items():
        totals = {name: [one[0] + one[1] for one in rounds] for name, rounds in by_checkout.items()}
        for name, rounds in by_checkout.items():
            columns = [f"{median(column):.2f}" for column in zip(*rounds, strict=True)]
            ratio = median(old / new for old, new in zip(totals.get("before", totals[name]), totals[name], strict=True))
            spread = f"{1e3 / max(totals[name]):.0f} to {1e3 / min(totals[name]):.0f}"
            rate = f"{1e3 / median(totals[name]):.0f} ({spread})"
            rows.append([arm, name, *columns, rate, f"{ratio:.2f}"])
    headings = ["", "", *(f"{column}, ms" for column in _COLUMNS), "images a CPU second", "speed / before"]
    return provenance.table(headings, rows)


if __name__ == "__main__":
    main()
