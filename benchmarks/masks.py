"""Time to draw the masks of one batch, on one core: python -m benchmarks.masks [--batch-size 256] [--json FILE]."""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

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
    """One line of the table; means are over calls, and over the sets of masks of a call."""

    strategy: str
    grid: Grid
    mean_context: float  # tokens a sample
    mean_target: float  # tokens a sample and target block
    min_ms: float
    median_ms: float


def measure(strategy: str, grid: Grid, configs: tuple[Strategy, ...], batch_size: int, calls: int) -> Row:
    """Draw every set of masks `calls` times, after as many rehearsals as fill the cache of block sizes."""
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
    """Print a Markdown table and, where asked, write the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    options = parser.parse_args()
    torch.set_num_threads(1)

    print(f"batch of {options.batch_size}, {options.calls} calls, one core, torch {torch.__version__}\n")
    print("| strategy | grid | context tokens | target tokens | min ms | median ms |\n|---|---|---|---|---|---|")
    rows = []
    for strategy, grid, configs in CASES:
        row = measure(strategy, grid, configs, options.batch_size, options.calls)
        size = " x ".join(map(str, grid))
        print(
            f"| {strategy} | {size} | {row.mean_context} | {row.mean_target} | {row.min_ms:.2f} | {row.median_ms:.2f} |"
        )
        rows.append(row)
    if options.json:
        report = {"batch_size": options.batch_size, "calls": options.calls, "torch": torch.__version__}
        options.json.write_text(json.dumps({**report, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
