"""Blocks on a grid, as boolean masks: where they lie, what they leave over, and how samples get equal lengths."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import groupby

import torch
from torch import Generator, Tensor

from jepa.positions import Grid

Range = tuple[float, float]
SIMULATED = 1000  # placements from which the usual numbers of context tokens are read
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # edges of the windows of context counts; see draw_scene
OVERDRAW = 5  # placements drawn for each that is missing: about one in four or five falls into a window


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
    """What any block covers: bool [B, M, N] -> bool [B, N]; many times as fast as torch.any."""
    return reduce(torch.logical_or, blocks.unbind(dim=1))


def block_size(grid: Grid, scale: float, aspect: float) -> Grid:
    """Tokens along each axis of a block that covers the share `scale` of the grid.

    The block has the proportions of the grid, but that its last two axes are to each other as `aspect` to one; on a
    square grid this is the block of I-JEPA. Where an axis would outgrow the grid, the other makes up for it.
    """
    shares = [scale ** (1 / len(grid))] * len(grid)
    if len(grid) > 1:
        stretch = min(max(math.sqrt(aspect), shares[0]), 1 / shares[0])
        shares[-2:] = shares[-2] * stretch, shares[-1] / stretch
    return tuple(min(max(round(share * tokens), 1), tokens) for share, tokens in zip(shares, grid, strict=True))


def draw_block_size(grid: Grid, scale: Range, aspect: Range, generator: Generator) -> Grid:
    """A block size with scale and aspect uniform in their ranges, independent of each other."""
    chance = torch.rand(2, generator=generator).tolist()
    low, high = scale
    narrow, wide = aspect
    return block_size(grid, low + chance[0] * (high - low), narrow + chance[1] * (wide - narrow))


def possible_block_sizes(grid: Grid, scale: Range, aspect: Range, steps: int = 32) -> set[Grid]:
    """Sizes that `draw_block_size` can give (but for such as fall between the steps of the search)."""
    points = [step / steps for step in range(steps + 1)]
    scales = {scale[0] + point * (scale[1] - scale[0]) for point in points}
    aspects = {aspect[0] + point * (aspect[1] - aspect[0]) for point in points}
    return {block_size(grid, one, other) for one in scales for other in aspects}


@dataclass(frozen=True)
class Scene:
    """Blocks of fixed sizes to be placed on a grid: `targets` are hidden, the rest of another block is the context.

    joined: the union of the hidden blocks is one target, not each block one.
    """

    grid: Grid
    context_size: Grid
    target_size: Grid
    targets: int
    joined: bool

    def place(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Independent placements of all blocks -> context bool [count, N], target bool [count, M, N], disjoint."""
        blocks = place_blocks(self.grid, self.target_size, (count, self.targets), generator)
        hidden = union(blocks)
        context = place_blocks(self.grid, self.context_size, (count,), generator) & ~hidden
        return context, hidden.unsqueeze(1) if self.joined else blocks


@lru_cache(maxsize=1024)
def context_windows(scene: Scene) -> tuple[tuple[int, int], ...]:
    """Windows (fewest, most) of context counts, each once for every simulated placement that falls into it.

    Raises ValueError where many a placement leaves no context.
    """
    context, _ = scene.place(SIMULATED, torch.Generator().manual_seed(0))
    counts = sorted(context.sum(dim=1).tolist())
    edges = [counts[int(quantile * (SIMULATED - 1))] for quantile in QUANTILES]
    usual = [count for count in counts if max(1, edges[0]) <= count <= edges[-1]]
    if len(usual) < SIMULATED // 2:
        raise ValueError(
            f"{scene.targets} hidden blocks of {_product(scene.target_size)} tokens on a grid of {_product(scene.grid)}"
            f" leave no context in {counts.count(0) / SIMULATED:.0%} of their placements"
        )
    windows: list[tuple[int, int]] = []
    for _, group in groupby(usual, key=lambda count: bisect_right(edges[1:-1], count)):
        members = list(group)
        windows += [(members[0], members[-1])] * len(members)
    return tuple(windows)


def draw_scene(scene: Scene, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Placements with equal lengths over the batch -> context bool [B, N], target bool [B, M, N].

    Hidden blocks overlap more or less and so leave fewer or more tokens. How many is shared by the batch, as sizes are:
    a window of context counts is drawn, each as often as its counts occur; the samples are independent placements, all
    equally likely, whose counts lie in the window; and what exceeds its lower end is dropped at random. Over calls that
    adds up to uniform placements, but for the one in ten with the least or the most overlap, which never occur.
    Departs from I-JEPA and V-JEPA, which cut the end of every sample off at the length of the shortest in the batch,
    because what a token is used for would then depend on where it is and on the batch size.
    """
    windows = context_windows(scene)
    fewest, most = windows[int(torch.randint(len(windows), (), generator=generator))]
    contexts, targets, missing = [], [], batch_size
    while missing:  # ends: the window was read from placements that fall into it
        context, target = scene.place(OVERDRAW * missing, generator)
        count = context.sum(dim=1)
        fits = ((count >= fewest) & (count <= most)).nonzero().squeeze(1)[:missing]
        contexts.append(context[fits])
        targets.append(target[fits])
        missing -= len(fits)
    context, target = torch.cat(contexts), torch.cat(targets)
    if scene.joined:
        target = random_tokens(target, math.prod(scene.grid) - most, generator)
    return random_tokens(context, fewest, generator), target


def random_tokens(candidates: Tensor, count: int, generator: Generator) -> Tensor:
    """A random choice of `count` of each row's True: bool [..., N] -> bool [..., N]."""
    order = torch.rand(candidates.shape, generator=generator).masked_fill_(~candidates, -1.0)
    chosen = order.topk(count, sorted=False).indices
    return torch.zeros_like(candidates).scatter_(-1, chosen, True)


def token_indices(mask: Tensor) -> Tensor:
    """Where each row is True, ascending: bool [..., N] with K True in every row -> int64 [..., K]."""
    return mask.nonzero()[:, -1].reshape(*mask.shape[:-1], -1).clone()


def _product(size: Grid) -> str:
    return " x ".join(map(str, size))
