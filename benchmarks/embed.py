"""Time of `jepa embed`, the whole command: python -m benchmarks.embed RUN_DIR --json FILE.json

The command embeds the 20,000 training images of the embedded world with the encoder of a run of `configs/image.yaml`
(`make demo`), which must be rendered already; with `--split test`, its 2,000 test images. It starts anew each time, in
a process of its own, so the time includes the start of Python. Ways take turns: precision, processes, format.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import provenance

WAYS = {
    "one process, bf16": ["features.parquet", "compute.precision=bf16"],
    "one process, fp32": ["features.parquet", "compute.precision=fp32"],
    "two processes, bf16": ["features.parquet", "compute.precision=bf16", "--processes", "2"],
    "two processes, bf16, all tokens, float16": [
        *("features.npy", "compute.precision=bf16", "--processes", "2", "--pooling", "tokens", "--dtype", "float16")
    ],
}


_IMAGES = {"train": 20_000, "test": 2_000}


class Cost(NamedTuple):
    """Seconds on the clock and of the processors, and megabytes of the largest process."""

    wall: float
    cpu: float
    megabytes: float


def measure(run: Path, split: str, options: list[str]) -> float:
    """Embed the images of a split once -> seconds."""
    with TemporaryDirectory() as folder:
        output, *more = options
        command = [sys.executable, "-m", "jepa", "embed", str(run), "-o", str(Path(folder, output)), "--split", split]
        started = time.perf_counter()
        process = subprocess.Popen([*command, *more], stderr=subprocess.PIPE)
        _, printed = process.communicate()
        wall = time.perf_counter() - started
        if process.returncode:
            raise RuntimeError(printed.decode())
    return wall


def main() -> None:
    """Measure all ways in turn, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of the demo")
    parser.add_argument("--split", choices=["train", "test"], default="train")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    options = parser.parse_args()
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, way in WAYS.items():
            costs[name].append(_own_cost(options.run.resolve(), options.split, way))
    rows = [[name, *(_spread([one[part] for one in own]) for part in range(3))] for name, own in costs.items()]
    table = provenance.table(["way", "seconds", "seconds of processors", "MB of the largest process"], rows)
    source = provenance.provenance("benchmarks.embed")
    cores, count = len(os.sched_getaffinity(0)), _IMAGES[options.split]
    page = (
        f"{provenance.heading(source)}\n\n`jepa embed`, {count:,} images of 64 px, ViT-nano with 64 tokens, on {cores} "
        f"cores; medians and range of {options.rounds} rounds.\n\n{table}"
    )
    provenance.write(options.json, {**source, "cores": cores, "costs": costs}, page)


def _own_cost(run: Path, split: str, way: list[str]) -> Cost:
    """The cost of one command, with that of its processes: measured in a fork, whose only children they are."""
    receiving, sending = os.pipe()
    if not (child := os.fork()):
        try:
            wall = measure(run, split, way)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            os.write(sending, f"{wall} {used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}".encode())
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as answer:
        numbers = answer.read().split()
    os.waitpid(child, 0)
    if not numbers:
        raise RuntimeError("the command failed; its error is above")
    return Cost(*map(float, numbers))


def _spread(values: list[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    main()
