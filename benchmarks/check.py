"""Fails if a training step, the masks or the import have become more expensive: `make bench-check`.

    python -m benchmarks.check [--update]

Compares counts and ratios with benchmarks/bounds.json, never seconds: a step of the demo's last stage with 16 images
and AdamW, bf16, on one thread; the time of masks in units of a matrix product; modules that `import jepa` loads.
Whoever makes the project cheaper lowers the bounds, and whoever must make it dearer raises them: --update writes what
is measured, plus a margin.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.steps.cases import Case, Ours
from benchmarks.steps.measure import MatrixProduct, cost
from jepa.config.recipes import read_recipe
from jepa.data import seeded
from jepa.launch import resolve
from jepa.masking import BlockMaskConfig, Strategy, TubeMaskConfig, sample_masks
from jepa.ops import cpu_bf16
from jepa.positions import Grid

FILE = Path(__file__).with_name("bounds.json")
_MARGINS = {
    "FLOPs": 1.01,
    "modules": 1.02,
    "time": 3.0,
    "allocations": 1.25,
}  # by a word of the name; others are counts that torch may change
_COUNT_MARGIN = 1.05
_ROUNDS = 15


def measured() -> dict[str, float]:
    """Everything that has a bound, by name."""
    torch.set_num_threads(1)
    modules = {f"modules that `import {name}` loads": imported(name) for name in ("jepa", "jepa.launch")}
    return {**of_step(), **of_masks(), **modules}


def of_step() -> dict[str, float]:
    """Counts of one step of the demo, without the blocks that only some processors run, so that they hold on all."""
    with patch.object(cpu_bf16, "applies", lambda _: False):
        # Whatever the recipe's batch and optimiser and the processor, so that the counts of other versions compare.
        fixed = ["run_dir=unused", "optim.batch_size=16", "optim.optimizer=adamw", "compute.precision=bf16"]
        config, modality = resolve("image", read_recipe("image"), fixed)
        case = Case("the demo", "image", config.optim.batch_size, ())
        ours = Ours(config, modality, case.batch(modality))
        ours.number = config.steps - 1
        ours.step()  # the first one also makes the state of the optimiser
        counted = cost(ours)
        return {
            "FLOPs of a step": counted.flops,
            "operations of a step": counted.operations,
            "waits of the host for a GPU in a step": counted.waits,
            "bytes kept for the backward pass": counted.activation_bytes,
            "allocations of a step": allocations(ours.step),
        }


def allocations(call: Callable[[], object]) -> int:
    """Blocks of memory that a call allocates through torch."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    return sum(event.name() == "[memory]" and event.nbytes() > 0 for event in events)


def of_masks() -> dict[str, float]:
    """Time of drawing masks for 256 samples, in units of a product of two matrices of 512 numbers a side, in fp32."""
    kinds: dict[str, tuple[Grid, Strategy]] = {
        "I-JEPA's": ((14, 14), BlockMaskConfig()),
        "V-JEPA's": ((8, 14, 14), TubeMaskConfig()),
    }
    product = MatrixProduct("fp32", side=512)
    found = {}
    for name, (grid, config) in kinds.items():
        pairs = [
            (seconds(partial(sample_masks, grid, config, 256, seeded(number))), seconds(product.step))
            for number in range(_ROUNDS)
        ]
        found[f"time of {name} masks, in matrix products"] = median(masks / unit for masks, unit in pairs[1:])
    return found


def seconds(call: Callable[[], object]) -> float:
    """CPU time of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def imported(name: str) -> int:
    """Modules that an import adds to those of torch itself."""
    code = f"import sys, torch; before = set(sys.modules); import {name}; print(len(set(sys.modules) - before))"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def exceeded(values: Mapping[str, float], bounds: Mapping[str, float]) -> list[str]:
    """A sentence for everything that is above its bound."""
    return [
        f"{name}: {values[name]:,.6g}, and the bound in benchmarks/bounds.json is {bound:,.6g}"
        for name, bound in bounds.items()
        if values[name] > bound
    ]


def bounds_of(values: Mapping[str, float]) -> dict[str, float]:
    """Bounds a margin above what was measured."""
    return {name: float(f"{value * _margin(name):.3g}") for name, value in values.items()}


def _margin(name: str) -> float:
    return next((margin for word, margin in _MARGINS.items() if word in name), _COUNT_MARGIN)


def main() -> int:
    """Compare or update -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the bounds")
    options = parser.parse_args()
    values = measured()
    if options.update:
        FILE.write_text(json.dumps(bounds_of(values), indent=1) + "\n")
    bounds = json.loads(FILE.read_text())
    assert bounds.keys() == values.keys(), f"{FILE} names other things than are measured; write it again with --update"
    for name, value in values.items():
        print(f"{name}: {value:,.6g} of at most {bounds[name]:,.6g}")
    problems = exceeded(values, bounds)
    for problem in problems:
        print(f"more expensive than before: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
