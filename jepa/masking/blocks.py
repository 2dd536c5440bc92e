"""Placing blocks on a grid as boolean masks, and equal numbers of context tokens for all samples of a batch."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import groupby

import torch
from torch import Generator, Tensor

from jepa.masking.groups import own_generator
from jepa.positions import Grid

Range = tuple[float, float]
SIMULATED = 1000  # placements from which the usual numbers of context tokens are estimated
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # edges of the windows of context counts; see draw_blocks
_STEPS = 32  # values of scale and of aspect at which possible sizes of blocks are searched
OVERDRAW = 5  # placements drawn for each missing one; about one in four or five falls into a window


def place_blocks(grid: Grid, size: Grid, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Place blocks of one size on a grid; every placement that fits is equally likely.

    grid (g_1..g_A), size (s_1..s_A) -> bool [*shape, N], True inside the block.
    """
    inside = torch.ones(*shape, 1, dtype=torch.uint8)  # bytes: torch broadcasts & twice as fast over them as over bool
    for tokens, extent in zip(grid, size, strict=True):  # one axis at a time: a block is a product of intervals
        start = torch.randint(tokens - extent + 1, shape, generator=generator).unsqueeze(-1)
        along = torch.arange(tokens)
        interval = (along >= start) & (along < start + extent)
        inside = (inside.unsqueeze(-1) & interval.view(torch.uint8).unsqueeze(-2)).flatten(-2)
    return inside.view(torch.bool)


def union(blocks: Tensor) -> Tensor:
    """Tokens that any block covers: bool [B, M, N] -> bool [B, N]; many times faster than torch.any."""
    return reduce(torch.logical_or, blocks.unbind(dim=1))


def block_size(grid: Grid, scale: float, aspect: float) -> Grid:
    """Tokens along each axis of a block that covers the share `scale` of the grid.

    The block has the proportions of the grid, with the last two axes stretched to the ratio `aspect`; on a square grid
    this is the block of I-JEPA. If an axis would exceed the grid, the other one grows instead.
    """
    shares = [scale ** (1 / len(grid))] * len(grid)
    if len(grid) > 1:
        stretch = min(max(math.sqrt(aspect), shares[0]), 1 / shares[0])
        shares[-2:] = shares[-2] * stretch, shares[-1] / stretch
    return tuple(min(max(round(share * tokens), 1), tokens) for share, tokens in zip(shares, grid, strict=True))


def draw_block_size(grid: Grid, scale: Range, aspect: Range, generator: Generator) -> Grid:
    """Draw a block size; scale and aspect are uniform in their ranges and independent."""
    chance = torch.rand(2, generator=generator).tolist()
    low, high = scale
    narrow, wide = aspect
    return block_size(grid, low + chance[0] * (high - low), narrow + chance[1] * (wide - narrow))


def possible_block_sizes(grid: Grid, scale: Range, aspect: Range) -> set[Grid]:
    """Sizes that `draw_block_size` can return, searched on a grid of scales and aspects."""
    points = [step / _STEPS for step in range(_STEPS + 1)]
    scales = {scale[0] + point * (scale[1] - scale[0]) for point in points}
    aspects = {aspect[0] + point * (aspect[1] - aspect[0]) for point in points}
    return {block_size(grid, one, other) for one in scales for other in aspects}


@dataclass(frozen=True)
class Blocks:
    """Target blocks of one size and a context block, to be placed on a grid; the context excludes the targets.

    joined: the union of the target blocks is a single target.
    """

    grid: Grid
    context_size: Grid
    target_size: Grid
    targets: int
    joined: bool

    def place(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Place all blocks `count` times -> context bool [count, N], target bool [count, M, N], disjoint."""
        blocks = place_blocks(self.grid, self.target_size, (count, self.targets), generator)
        hidden = union(blocks)
        context = place_blocks(self.grid, self.context_size, (count,), generator) & ~hidden
        return context, hidden.unsqueeze(1) if self.joined else blocks


@lru_cache(maxsize=1024)
def context_windows(blocks: Blocks) -> tuple[tuple[int, int], ...]:
    """Windows (fewest, most) of context counts; each occurs once for every simulated placement that falls into it.

    Raises ValueError if too many placements leave no context.
    """
    context, _ = blocks.place(SIMULATED, torch.Generator().manual_seed(0))
    counts = sorted(context.sum(dim=1).tolist())
    edges = [counts[int(quantile * (SIMULATED - 1))] for quantile in QUANTILES]
    usual = [count for count in counts if max(1, edges[0]) <= count <= edges[-1]]
    if len(usual) < SIMULATED // 2:
        raise ValueError(
            f"{blocks.targets} target blocks of {_product(blocks.target_size)} tokens on a grid of "
            f"{_product(blocks.grid)} leave no context in {counts.count(0) / SIMULATED:.0%} of their placements"
        )
    windows: list[tuple[int, int]] = []
    for _, group in groupby(usual, key=lambda count: bisect_right(edges[1:-1], count)):
        members = list(group)
        windows += [(members[0], members[-1])] * len(members)
    return tuple(windows)


def draw_blocks(blocks: Blocks, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw placements with equal context lengths in the batch -> context bool [B, N], target bool [B, M, N].

    Target blocks overlap by chance, so contexts differ in size. Each batch draws one window of context sizes, with the
    probability that a size falls into it. Each sample is then an independent, uniform placement whose context size lies
    in the window; random tokens beyond the window's lower end are dropped. Over many calls placements are uniform,
    except that the tenth with the least or the most overlap never occurs. Departs from I-JEPA and V-JEPA, which cut
    every context to the shortest of the batch in raster order: how often a token is context then depends on its
    position and on the batch size.
    """
    windows = context_windows(blocks)
    fewest, most = windows[int(torch.randint(len(windows), (), generator=generator))]
    contexts, targets, missing, own = [], [], batch_size, own_generator(generator)
    while missing:  # ends, as some simulated placement falls into the window
        context, target = blocks.place(OVERDRAW * missing, own)
        count = context.sum(dim=1)
        fits = ((count >= fewest) & (count <= most)).nonzero().squeeze(1)[:missing]
        contexts.append(context[fits])
        targets.append(target[fits])
        missing -= len(fits)
    context, target = torch.cat(contexts), torch.cat(targets)
    if blocks.joined:
        target = random_tokens(target, math.prod(blocks.grid) - most, own)
    return random_tokens(context, fewest, own), target


def random_tokens(candidates: Tensor, count: int, generator: Generator) -> Tensor:
    """Choose `count` of the True values of each row at random: bool [..., N] -> bool [..., N]."""
    order = torch.rand(candidates.shape, generator=generator).masked_fill_(~candidates, -1.0)
    chosen = order.topk(count, sorted=False).indices
    return torch.zeros_like(candidates).scatter_(-1, chosen, True)


def token_indices(mask: Tensor) -> Tensor:
    """Indices of the True values of each row, ascending: bool [..., N] with K True per row -> int64 [..., K]."""
    found = mask.nonzero()[:, -1]
    return found.reshape(*mask.shape[:-1], len(found) // mask.shape[:-1].numel()).clone()


def _product(size: Grid) -> str:
    return " x ".join(map(str, size))
