"""Masks: properties that hold for every strategy and grid, over many seeds; the published flaws in numbers."""

import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Generator, Tensor

from jepa.masking import (
    BlockMaskConfig,
    CausalMaskConfig,
    MaskingConfig,
    Masks,
    RandomMaskConfig,
    RandomTubeMaskConfig,
    TubeMaskConfig,
    check_masking,
    place_blocks,
    sample_masks,
)
from jepa.masking.blocks import Blocks, draw_block_size
from jepa.positions import Grid, grid_positions

GRIDS = [(14, 14), (8, 14, 14), (8, 32), (16,), (4, 6)]
TWO_LARGE = TubeMaskConfig(blocks=2, scale=0.7)
SYMMETRIC = [
    BlockMaskConfig(),
    TubeMaskConfig(),
    TWO_LARGE,
    TubeMaskConfig(time_scale=0.5),
    RandomMaskConfig(),
    RandomTubeMaskConfig(),
]
EVERY = [*SYMMETRIC, CausalMaskConfig(), CausalMaskConfig(cut=(0.3, 0.7))]

every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def strategies(configs: list[Any]) -> Callable[..., Any]:
    return pytest.mark.parametrize("config", configs, ids=lambda config: config.kind)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Many small operations: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


@cache
def uses(grid: Grid, config: Any, calls: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """How often a token was context, and target, in every call: int64 [calls, N] each."""
    tokens, context, target = math.prod(grid), [], []
    for seed in range(calls):
        masks = sample_masks(grid, config, batch_size, seeded(seed))
        context.append(masks.context.flatten().bincount(minlength=tokens))
        target.append(masks.target.flatten().bincount(minlength=tokens))
    return torch.stack(context), torch.stack(target)


def chosen(indices: Tensor, tokens: int) -> Tensor:
    """Indices [B, K] -> how often each token was named [B, tokens]."""
    return torch.zeros(len(indices), tokens, dtype=torch.int64).scatter_add_(1, indices, torch.ones_like(indices))


def assert_sound(masks: Masks, grid: Grid, batch_size: int) -> None:
    tokens = math.prod(grid)
    assert masks.context.dtype == masks.target.dtype == torch.int64
    assert len(masks) == len(masks.target) == batch_size
    assert masks.context.shape[1] > 0
    assert masks.target.shape[2] > 0
    assert (masks.context.diff(dim=-1) > 0).all()  # ascending, so none twice
    assert (masks.target.diff(dim=-1) > 0).all()
    assert not (chosen(masks.context, tokens) * chosen(masks.target.flatten(1), tokens)).any()


@pytest.mark.parametrize(("grid", "size"), [((4, 6), (2, 3)), ((5,), (2,)), ((3, 4, 3), (2, 2, 1)), ((3, 3), (3, 3))])
def test_every_placement_of_a_block_that_fits_is_equally_frequent(grid: Grid, size: Grid) -> None:
    placements = {}
    for start in grid_positions(tuple(g - s + 1 for g, s in zip(grid, size, strict=True))).int():  # brute force
        block = torch.zeros(grid, dtype=torch.bool)
        block[tuple(slice(int(low), int(low) + extent) for low, extent in zip(start, size, strict=True))] = True
        placements[tuple(block.flatten().tolist())] = 0
    draws = 400 * len(placements)
    for block in place_blocks(grid, size, (draws // 4, 4), seeded(0)).flatten(0, 1).tolist():
        placements[tuple(block)] += 1  # a KeyError is a block that does not fit
    chi_square = sum((count - 400) ** 2 / 400 for count in placements.values())
    freedom = len(placements) - 1
    assert chi_square <= freedom + 4 * math.sqrt(2 * freedom)


@every_grid
@strategies(EVERY)
def test_context_and_targets_are_disjoint_and_equally_long(grid: Grid, config: Any) -> None:
    for seed in range(100):
        assert_sound(sample_masks(grid, config, 5, seeded(seed)), grid, 5)


@every_grid
@strategies(SYMMETRIC)
def test_every_token_can_be_target_and_can_be_context(grid: Grid, config: Any) -> None:
    context, target = uses(grid, config, calls=200, batch_size=32)
    assert target.sum(0).min() > 0
    if config != TWO_LARGE:  # no two blocks of 70 % spare the middle of a grid, wherever they lie
        assert context.sum(0).min() > 0


@every_grid
@strategies(SYMMETRIC)
def test_the_use_of_tokens_is_symmetric_under_flips_and_time_reversal(grid: Grid, config: Any) -> None:
    for counts in uses(grid, config, calls=200, batch_size=32):
        total = counts.sum(0).view(grid)
        for axis in range(len(grid)):
            mirrored = total.flip(axis)
            # Samples differ from their mirror images by -1, 0 or 1 with mean 0 and are independent given the sizes.
            assert ((total - mirrored).abs() <= 5 * (total + mirrored).sqrt() + 1).all()


@pytest.mark.parametrize(
    ("grid", "config"), [((14, 14), BlockMaskConfig()), ((8, 14, 14), TubeMaskConfig()), ((8, 14, 14), TWO_LARGE)]
)
def test_the_use_of_tokens_does_not_depend_on_the_batch_size(grid: Grid, config: Any) -> None:
    for one, many in zip(uses(grid, config, 1500, 1), uses(grid, config, 300, 64), strict=True):
        few, lots = one.float(), many.float() / 64
        error = (
            few.var(0) / len(few) + lots.var(0) / len(lots)
        ).sqrt()  # calls are independent, samples of one are not
        assert ((few.mean(0) - lots.mean(0)).abs() <= 5 * error + 1e-3).all()


@pytest.mark.parametrize(("config", "share"), [(BlockMaskConfig(), 0.94), (TubeMaskConfig(), 0.89), (TWO_LARGE, 0.9)])
def test_equal_lengths_drop_few_tokens_and_hardly_change_their_positions(config: Any, share: float) -> None:
    grid, generator, free_context, free_target = (14, 14), seeded(1), torch.zeros(196), torch.zeros(196)
    calls, batch_size = 400, 32
    for _ in range(calls):  # placements as they fall
        if isinstance(config, BlockMaskConfig):
            size = draw_block_size(grid, config.target_scale, config.target_aspect, generator)
            around = draw_block_size(grid, config.context_scale, (1.0, 1.0), generator)
            scene = Blocks(grid, around, size, config.targets, joined=False)
        else:
            size = draw_block_size(grid, (config.scale, config.scale), config.aspect, generator)
            scene = Blocks(grid, grid, size, config.blocks, joined=True)
        context, target = scene.place(batch_size, generator)
        free_context += context.sum(0)
        free_target += target.sum((0, 1))
    for counts, free in zip(uses(grid, config, calls, batch_size), (free_context, free_target), strict=True):
        used = counts.sum(0)
        assert share < used.sum() / free.sum() <= 1.01
        gap = used / used.sum() - free / free.sum()  # shape of the map, [N]
        assert gap.abs().sum() < 0.05


@every_grid
@strategies(EVERY)
def test_the_same_generator_state_gives_the_same_masks(grid: Grid, config: Any) -> None:
    first, again, other = (sample_masks(grid, config, 6, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.target, again.target)
    if config.kind != "causal":
        assert not (first.context.shape == other.context.shape and torch.equal(first.context, other.context))


def test_full_tubes_span_all_of_time_and_shorter_ones_do_not() -> None:
    grid, space = (8, 14, 14), 14 * 14
    for config in (TubeMaskConfig(), RandomTubeMaskConfig()):
        for indices in (lambda masks: masks.context, lambda masks: masks.target[:, 0]):
            frames = chosen(indices(sample_masks(grid, config, 16, seeded(0))), 8 * space).view(16, 8, space)
            assert torch.equal(frames, frames[:, :1].expand_as(frames))
    short = sample_masks(grid, TubeMaskConfig(time_scale=0.5), 16, seeded(0)).target[:, 0]
    frames = chosen(short, 8 * space).view(16, 8, space)
    assert not torch.equal(frames, frames[:, :1].expand_as(frames))


@strategies([*EVERY, BlockMaskConfig(legacy="ijepa")])
def test_a_share_of_every_target_is_predicted_and_the_rest_is_hidden_all_the_same(config: Any) -> None:
    grid, batch_size, part = (14, 14), 64, replace(config, predicted=0.3)
    check_masking(grid, part)
    seen, expected = torch.zeros(196), torch.zeros(196)
    for seed in range(20):
        whole, some, again = (sample_masks(grid, one, batch_size, seeded(seed)) for one in (config, part, part))
        assert torch.equal(some.context, whole.context)
        assert torch.equal(some.target, again.target)
        assert some.target.shape == (*whole.target.shape[:2], round(0.3 * whole.target.shape[2]))
        assert_sound(some, grid, batch_size)
        for block in range(whole.target.shape[1]):
            every, few = (chosen(masks.target[:, block], 196) for masks in (whole, some))
            assert (few <= every).all()
            seen += few.sum(0)
            expected += every.sum(0) * some.target.shape[2] / whole.target.shape[2]
    assert ((seen - expected).abs() <= 5 * expected.sqrt()).all()  # every token of a target is equally likely


def test_of_a_small_target_at_least_one_token_is_predicted() -> None:
    assert sample_masks((2, 2), RandomMaskConfig(ratio=0.5, predicted=0.01), 3, seeded(0)).target.shape == (3, 1, 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_causal_context_is_all_before_the_cut_and_the_target_all_after(axis: int) -> None:
    grid, cuts = (8, 6, 4), set()
    where = grid_positions(grid)[:, axis]
    for seed in range(50):
        masks = sample_masks(grid, CausalMaskConfig(axis=axis, cut=(0.25, 0.75)), 3, seeded(seed))
        cuts.add(masks.context.shape[1])
        assert where[masks.context].max() < where[masks.target].min()
        assert masks.context.shape[1] + masks.target.shape[2] == math.prod(grid)
    assert len(cuts) > 1


def test_block_sizes_are_those_of_the_paper() -> None:
    areas = [
        math.prod(draw_block_size((16, 16), (0.15, 0.2), (0.75, 1.5), generator)) / 256
        for generator in map(seeded, range(500))
    ]
    assert 0.13 < min(areas) < 0.16
    assert 0.19 < max(areas) < 0.22
    assert draw_block_size((16, 16), (1.0, 1.0), (1.0, 1.0), seeded(0)) == (16, 16)


@given(
    grid=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    config=st.one_of(
        st.builds(BlockMaskConfig, targets=st.integers(1, 6)),
        st.builds(TubeMaskConfig, blocks=st.integers(1, 6), scale=st.floats(0.05, 1), time_scale=st.floats(0.1, 1)),
        st.builds(RandomMaskConfig, ratio=st.floats(0.05, 1)),
        st.builds(RandomTubeMaskConfig, ratio=st.floats(0.05, 1)),
        st.builds(CausalMaskConfig, axis=st.integers(0, 2), cut=st.tuples(st.floats(0.1, 0.5), st.floats(0.5, 1))),
    ),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_grid_gives_valid_masks_or_an_error(grid: Grid, config: Any, seed: int) -> None:
    try:
        check_masking(grid, config)
    except ValueError:
        return
    for shift in range(5):
        assert_sound(sample_masks(grid, config, 4, seeded(seed + shift)), grid, 4)


@pytest.mark.parametrize(
    ("grid", "config", "sentence"),
    [
        ((14, 14), BlockMaskConfig(targets=9), "9 target blocks of up to 20% can leave a context of .* of 196 tokens"),
        ((1, 2), BlockMaskConfig(), "4 target blocks of 1 x 1 tokens on a grid of 1 x 2 leave no context in"),
        ((14, 14), TubeMaskConfig(scale=1.0), "8 target blocks of 14 x 14 tokens .* leave no context in 100%"),
        ((4, 4), RandomMaskConfig(ratio=0.99), "hiding 99% splits 16 tokens into 16 and 0"),
        ((8, 2, 2), RandomTubeMaskConfig(ratio=0.1), "hiding 10% splits 4 tokens into 0 and 4"),
        ((8, 14), CausalMaskConfig(cut=(0.5, 0.99)), "a cut at 99% of axis 0 splits 8 tokens into 8 and 0"),
        ((8, 14), CausalMaskConfig(axis=2), "axis 2 does not exist: the grid has 2"),
        ((8, 14, 14), BlockMaskConfig(legacy="ijepa"), "2 axes"),
        ((14, 14), TubeMaskConfig(legacy="vjepa"), "3 axes"),
    ],
)
def test_masks_that_do_not_fit_a_grid_are_refused_with_the_numbers(grid: Grid, config: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_masking(grid, config)


def test_config_is_chosen_by_kind_and_its_numbers_are_checked() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(MaskingConfig)
    assert adapter.validate_python({"kind": "tube", "blocks": 2, "scale": 0.7}) == TWO_LARGE
    with pytest.raises(ValidationError, match=r"from low to high, not from 0\.3 to 0\.2"):
        adapter.validate_python({"kind": "block", "target_scale": (0.3, 0.2)})
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        adapter.validate_python({"kind": "random", "ratio": 1.5})


def test_masks_can_be_sliced_by_samples_pickled_and_moved() -> None:
    masks = sample_masks((14, 14), BlockMaskConfig(), 8, seeded(0))
    part = masks[2:5]
    assert len(part) == 3
    assert torch.equal(part.target, masks.target[2:5])
    again = pickle.loads(pickle.dumps(masks)).to("cpu")
    assert torch.equal(again.context, masks.context)
    stored = again.context.untyped_storage().nbytes()
    assert stored == again.context.numel() * again.context.element_size()  # workers send the indices and no more


@pytest.mark.parametrize(
    ("batch_size", "calls", "row_14", "length"), [(1, 1000, 0.79, 112), (16, 300, 0.10, 83), (128, 100, 0.02, 69)]
)
def test_legacy_ijepa_never_uses_the_last_row_and_rarely_the_bottom(
    batch_size: int, calls: int, row_14: float, length: float
) -> None:
    context, target = uses((16, 16), BlockMaskConfig(legacy="ijepa"), calls, batch_size)
    seen, hidden = context.sum(0).view(16, 16) / (calls * batch_size), target.sum(0).view(16, 16)
    assert seen[15].max() == seen[:, 15].max() == hidden[15].max() == hidden[:, 15].max() == 0
    assert seen[14].mean() == pytest.approx(row_14, abs=0.03)
    assert seen.sum() == pytest.approx(length, abs=4)


@pytest.mark.parametrize(
    ("config", "free_last", "free_length", "cut_last", "cut_length"),
    [
        (TubeMaskConfig(legacy="vjepa"), 0.37, 584, 0.02, 370),
        (TubeMaskConfig(legacy="vjepa", blocks=2, scale=0.7), 0.19, 293, 0.01, 107),
    ],
)
def test_legacy_vjepa_rarely_has_the_last_frames_as_context(
    config: TubeMaskConfig, free_last: float, free_length: float, cut_last: float, cut_length: float
) -> None:
    for batch_size, calls, last, length in ((1, 2000, free_last, free_length), (24, 1000, cut_last, cut_length)):
        context, _ = uses((8, 14, 14), config, calls, batch_size)
        seen = context.sum(0).view(8, 196) / (calls * batch_size)
        assert seen[-1].mean() == pytest.approx(last, abs=0.01)
        assert seen.sum() == pytest.approx(length, abs=10)


@strategies([BlockMaskConfig(legacy="ijepa"), TubeMaskConfig(legacy="vjepa")])
def test_legacy_masks_are_valid_apart_from_their_biases(config: Any) -> None:
    grid = (14, 14) if config.kind == "block" else (8, 14, 14)
    check_masking(grid, config)
    for seed in range(100):
        assert_sound(sample_masks(grid, config, 8, seeded(seed)), grid, 8)
