"""The demo's step on idle and on busy cores, by threads and by how long a waiting thread spins before it sleeps.

    python -m benchmarks.threads --json benchmarks/results/threads.json

OpenMP's threads wait for each other in every operation. By default, they spin 300,000 times first; where another
program needs the core, each of these waits is lost. `import jepa` sets GOMP_SPINCOUNT to 10,000. Every measurement is a
process of its own, in turn; on busy cores, one endless loop per core runs beside it.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

_VARIANTS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads, 300,000 spins": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "300000"},
    "two threads, 10,000 spins": {"OMP_NUM_THREADS": "2"},
}
_WARM_UP = 3  # steps


def milliseconds(seconds: float) -> float:
    """Wall time of a step, measured for some seconds in this process."""
    from benchmarks.steps.cases import Case, Ours
    from jepa.config.recipes import read_recipe
    from jepa.launch import resolve

    config, modality = resolve("image", read_recipe("image"), ["run_dir=unused"])
    ours = Ours(config, modality, Case("the demo", "image", config.optim.batch_size, ()).batch(modality))
    for _ in range(_WARM_UP):
        ours.step()
    started = time.perf_counter()
    for count in itertools.count(1):
        ours.step()
        if (passed := time.perf_counter() - started) > seconds:
            return passed * 1000 / count
    raise AssertionError


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Endless loops beside the body."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Measure in turn, and write the table and the numbers."""
    import jepa  # sets GOMP_SPINCOUNT, which libgomp reads when torch loads it  # noqa: F401

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", type=Path, help="result; a .md of the same name is written beside it")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(milliseconds(options.seconds))
        return
    from benchmarks import provenance

    outside = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    line = [sys.executable, "-m", "benchmarks.threads", "--measure", f"--seconds={options.seconds}"]
    found: dict[str, dict[str, list[float]]] = {name: {"idle": [], "busy": []} for name in _VARIANTS}
    for _ in range(options.rounds):
        for state, loops in (("idle", 0), ("busy", os.cpu_count() or 1)):
            with busy(loops):
                for name, settings in _VARIANTS.items():
                    done = subprocess.run(line, env=outside | settings, capture_output=True, text=True, check=True)
                    found[name][state].append(float(done.stdout))
    rows = [[name, *(_spread(times) for times in of_states.values())] for name, of_states in found.items()]
    source = provenance.provenance("benchmarks.threads")
    headings = ["milliseconds a step, median (range)", "idle cores", "busy cores"]
    page = f"{provenance.heading(source)}\n\n{provenance.table(headings, rows)}"
    if options.json:
        provenance.write(options.json, {**source, "milliseconds": found}, page)
    else:
        print(page)


def _spread(values: list[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    main()
