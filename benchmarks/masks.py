"""Time to draw the masks of one batch, on one core: python -m benchmarks.masks [--batch-size 256] --json FILE."""

import argparse
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import provenance
from jepa.masking import (
    BlockMaskConfig,
    CausalMaskConfig,
    RandomMaskConfig,
    RandomTubeMaskConfig,
    Strategy,
    TubeMaskConfig,
    sample_masks,
)
from jepa.positions import Grid

IMAGE, VIDEO, SOUND = (14, 14), (8, 14, 14), (8, 32)
CASES: list[tuple[str, Grid, tuple[Strategy, ...]]] = [
    ("I-JEPA blocks", IMAGE, (BlockMaskConfig(),)),
    ("I-JEPA blocks, legacy", IMAGE, (BlockMaskConfig(legacy="ijepa"),)),
    ("V-JEPA tubes, 8 x 15 % and 2 x 70 %", VIDEO, (TubeMaskConfig(), TubeMaskConfig(blocks=2, scale=0.7))),
    (
        "V-JEPA tubes, legacy",
        VIDEO,
        (TubeMaskConfig(legacy="vjepa"), TubeMaskConfig(blocks=2, scale=0.7, legacy="vjepa")),
    ),
    ("tubes of half the time", VIDEO, (TubeMaskConfig(time_scale=0.5),)),
    ("blocks in a video", VIDEO, (BlockMaskConfig(),)),
    ("blocks in a spectrogram", SOUND, (BlockMaskConfig(),)),
    ("random", IMAGE, (RandomMaskConfig(),)),
    ("random", VIDEO, (RandomMaskConfig(),)),
    ("random tubes", VIDEO, (RandomTubeMaskConfig(),)),
    ("causal", VIDEO, (CausalMaskConfig(),)),
]


@dataclass(frozen=True)
class Row:
    """Row of the table; means are over calls and over the mask sets of a call."""

    strategy: str
    grid: Grid
    mean_context: float  # tokens a sample
    mean_target: float  # tokens a sample and target block
    min_ms: float
    median_ms: float


def measure(strategy: str, grid: Grid, configs: tuple[Strategy, ...], batch_size: int, calls: int) -> Row:
    """Draw every set of masks `calls` times, after a warm-up that fills the cache of block sizes."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        for config in configs:
            sample_masks(grid, config, batch_size, generator)
    seconds, contexts, targets = [], [], []
    for _ in range(calls):
        start = time.perf_counter()
        drawn = [sample_masks(grid, config, batch_size, generator) for config in configs]
        seconds.append(time.perf_counter() - start)
        contexts += [masks.context.shape[1] for masks in drawn]
        targets += [masks.target.shape[2] for masks in drawn]
    return Row(
        strategy=strategy,
        grid=grid,
        mean_context=round(statistics.mean(contexts), 1),
        mean_target=round(statistics.mean(targets), 1),
        min_ms=round(1e3 * min(seconds), 3),
        median_ms=round(1e3 * statistics.median(seconds), 3),
    )


def main() -> None:
    """Measure, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(*case, options.batch_size, options.calls) for case in CASES]
    cells = [
        [
            *(row.strategy, " x ".join(map(str, row.grid)), str(row.mean_context), str(row.mean_target)),
            *(f"{row.min_ms:.2f}", f"{row.median_ms:.2f}"),
        ]
        for row in rows
    ]
    headings = ["strategy", "grid", "context tokens", "target tokens", "min ms", "median ms"]
    source = provenance.provenance("benchmarks.masks")
    what = f"Batches of {options.batch_size}, {options.calls} calls."
    report = {**source, "batch_size": options.batch_size, "calls": options.calls, "rows": [asdict(row) for row in rows]}
    page = f"{provenance.heading(source)} {what}\n\n{provenance.table(headings, cells)}"
    provenance.write(options.json, report, page)


if __name__ == "__main__":
    main()
