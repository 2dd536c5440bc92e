"""How the cost of a training step grows with tokens, image size, batch, depth and processes.

    python -m benchmarks.scaling --json benchmarks/results/scaling.json [--threads 1] [--clock cpu] [--processes 1 2 4]

One setting changes at a time around ViT-Ti of 6 blocks on 32 images of 64 pixels in patches of 8, bf16, data in memory.
All points of a setting take turns. Processes share the batch under DDP (gloo), one thread each. The time to start, by
the size of the data set, is measured elsewhere (`benchmarks.startup`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.steps.cases import Case, Method, Ours
from benchmarks.steps.measure import CLOCKS, cost, spread, take_turns
from jepa.distributed import join

BASE = Case(
    "I-JEPA, ViT-Ti of 6 blocks",
    "image",
    32,
    (
        *("data.masking={kind: block, targets: 4}", "model.positions=sincos", "model.target_layers=1"),
        *("data.image_size=64", "data.patch_size=8", "model.size={width: 192, depth: 6, heads: 3}"),
        "model.predictor={width: 96, depth: 3, heads: 3}",
    ),
)
SWEEPS: dict[str, tuple[str, dict[str, str]]] = {
    "tokens": ("tokens of an image of 64 pixels", {"64": "data.patch_size=8", "256": "data.patch_size=4"}),
    "image size": (
        "pixels per side, in patches of 8",
        {str(side): f"data.image_size={side}" for side in (48, 64, 96, 128)},
    ),
    "batch": ("samples a step", {str(size): f"optim.batch_size={size}" for size in (4, 8, 16, 32, 64)}),
    "depth": (
        "blocks of the encoder",
        {str(depth): f"model.size={{width: 192, depth: {depth}, heads: 3}}" for depth in (3, 6, 12, 24)},
    ),
}


def ours(setting: str) -> Ours:
    """Our step with a setting over the base."""
    case = BASE
    if setting.startswith("optim.batch_size="):
        case = replace(BASE, batch_size=int(setting.partition("=")[2]))
    config, modality = case.build("bf16", [setting])
    return Ours(config, modality, case.batch(modality))


def sweep(points: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Costs and times of the values of a setting."""
    methods: dict[str, Method] = {value: ours(setting) for value, setting in points.items()}
    costs = {value: asdict(cost(method)) for value, method in methods.items()}
    return {"costs": costs, "seconds": take_turns(methods, options.rounds, options.clock)}


def process(folder: Path, rounds: int) -> None:
    """One of several processes: write the seconds a step of every round to the folder."""
    torch.set_num_threads(1)
    world = join("cpu")
    share = replace(BASE, batch_size=BASE.batch_size // world.size)
    config, modality = share.build("bf16", [f"optim.batch_size={BASE.batch_size}"])
    method = Ours(config, modality, share.batch(modality), world)
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for _ in range(5):
            method.step()
        seconds.append((time.perf_counter() - started) / 5)
    seconds = seconds[1:]  # the first round is a warm-up
    (folder / f"{world.rank}.json").write_text(json.dumps(seconds))
    world.leave()


def with_processes(count: int, rounds: int) -> list[float]:
    """Seconds a step of rank 0 in every round, with several processes."""
    with tempfile.TemporaryDirectory() as folder:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
        measured = ["benchmarks.scaling", "--rounds", str(rounds), "--measure", folder]
        subprocess.run([sys.executable, *torchrun, *measured], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        seconds: list[float] = json.loads((Path(folder) / "0.json").read_text())
    return seconds


def table(name: str, title: str, result: dict[str, Any]) -> str:
    """The values of a setting: time, and the time of a FLOP relative to the first value."""
    rows, cells = [], result["seconds"].items()
    pace = {value: median(seconds) / result["costs"][value]["flops"] for value, seconds in cells}
    first = next(iter(pace.values()))
    for value, seconds in cells:
        counted = result["costs"][value]
        rows.append(
            [
                *(value, spread([1e3 * one for one in seconds], 1), f"{counted['flops'] / 1e9:.1f}"),
                *(f"{pace[value] / first:.2f}", f"{counted['activation_bytes'] / 1e6:.0f}", str(counted["operations"])),
            ]
        )
    headings = [title, "ms a step", "GFLOP", "time of a FLOP, relative", "activations, MB", "operations"]
    return f"**{name.capitalize()}**\n\n{provenance.table(headings, rows)}"


def process_table(seconds: dict[str, list[float]]) -> str:
    """Numbers of processes: time of a step of the same batch."""
    first = median(next(iter(seconds.values())))
    rows = [
        [count, spread([1e3 * one for one in found], 1), f"{first / median(found):.2f}"]
        for count, found in seconds.items()
    ]
    return "**Processes**\n\n" + provenance.table(["processes", "ms a step of 32 samples", "speed, relative"], rows)


def main() -> None:
    """Measure, and write the tables and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="of all but the processes")
    parser.add_argument("--processes", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--json", type=Path, help="result; a .md of the same name is written beside it")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        process(options.measure, options.rounds)
        return
    torch.set_num_threads(options.threads)
    sweeps = {name: sweep(points, options) for name, (_, points) in SWEEPS.items()}
    seconds = {str(count): with_processes(count, options.rounds) for count in options.processes}
    parts = [table(name, SWEEPS[name][0], result) for name, result in sweeps.items()]
    source = provenance.provenance("benchmarks.scaling")
    clock = "Wall time." if options.clock == "wall" else "CPU time of the process; wall time for several processes."
    cores = source["hardware"]["cores"]
    page = "\n\n".join([f"{provenance.heading(source)} {cores} cores. {clock}", *parts, process_table(seconds)])
    print(page) if options.json is None else provenance.write(
        options.json, {**source, "clock": options.clock, "sweeps": sweeps, "processes": seconds}, page
    )


if __name__ == "__main__":
    main()
