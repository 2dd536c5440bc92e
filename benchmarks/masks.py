"""CPU time to draw masks on one core, of one batch and of one process's share of a step.

python -m benchmarks.masks [--batch-size 256] --json FILE
"""

import argparse
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import provenance
from jepa.config.recipes import read_recipe
from jepa.data import Order
from jepa.data.masks import step_masks
from jepa.launch import resolve
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
        start = time.thread_time()
        drawn = [sample_masks(grid, config, batch_size, generator) for config in configs]
        seconds.append(time.thread_time() - start)
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


@dataclass(frozen=True)
class Share:
    """Row of the second table: CPU time of one process to draw its share of the masks of a step."""

    recipe: str
    batch_size: int  # of all processes
    share: int  # samples of the process
    whole_ms: float  # the masks of the whole batch, of which the process takes its rows
    groups_ms: float  # the groups that hold its samples


SHARES = [
    ("image/vith14_ijepa", 2048, 128),
    ("video/vitl16_vjepa", 256, 32),
    ("video/vitl16_vjepa", 3072, 24),
    ("video/vitg16_vjepa2_384_cooldown", 3072, 6),
]


def measure_share(recipe: str, batch_size: int, share: int, calls: int) -> Share:
    """Median CPU time of both ways, by turns."""
    _, modality = resolve(recipe.partition("/")[0], read_recipe(recipe), [])
    order = Order(seed=0, batch_size=batch_size, rank=batch_size // share // 2, world_size=batch_size // share)
    groups = modality.mask_groups
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for step in range(calls + 2):
        for grouped, spent in seconds.items():
            modality.mask_groups = groups if grouped else None
            start = time.thread_time()
            step_masks(modality, order, step)
            spent.append(time.thread_time() - start)
    whole, grouped_ms = (1e3 * statistics.median(seconds[way][2:]) for way in (False, True))
    return Share(recipe, batch_size, share, round(whole, 2), round(grouped_ms, 2))


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
    shares = [measure_share(*case, max(1, options.calls // 20)) for case in SHARES]
    of_process = provenance.table(
        ["recipe", "batch", "samples of the process", "whole batch, ms", "its groups, ms"],
        [
            [
                one.recipe,
                *(f"{value:,}" for value in (one.batch_size, one.share)),
                f"{one.whole_ms:.1f}",
                f"{one.groups_ms:.1f}",
            ]
            for one in shares
        ],
    )
    headings = ["strategy", "grid", "context tokens", "target tokens", "min ms", "median ms"]
    source = provenance.provenance("benchmarks.masks")
    what = f"Batches of {options.batch_size}, {options.calls} calls."
    report = {
        **source,
        "batch_size": options.batch_size,
        "calls": options.calls,
        "rows": [asdict(row) for row in rows],
        "shares": [asdict(share) for share in shares],
    }
    what_of_process = "Masks of one process at a step, median CPU time: drawn for the whole batch, and for its groups."
    tables = provenance.table(headings, cells), what_of_process, of_process
    page = "\n\n".join([f"{provenance.heading(source)} {what}", *tables])
    provenance.write(options.json, report, page)


if __name__ == "__main__":
    main()
