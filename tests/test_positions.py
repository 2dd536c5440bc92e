"""Coordinates, sin-cos tables and rotary angles on grids with one, two and three axes."""

import math

import pytest
import torch
import torch.nn.functional as F

from jepa.positions import Grid, grid_positions, rotary_angles, sincos_table
from jepa.transformer import rotate, rotation

GRIDS = [(11,), (4, 7), (3, 4, 5)]


@pytest.mark.parametrize("grid", GRIDS)
def test_positions_count_through_the_grid_with_the_last_axis_fastest(grid: Grid) -> None:
    expected = [torch.unravel_index(torch.tensor(token), grid) for token in range(math.prod(grid))]
    assert torch.equal(grid_positions(grid), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("dim", [24, 32, 33])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_sincos_table_equals_its_formula(grid: Grid, dim: int) -> None:
    positions, axes = grid_positions(grid), len(grid)
    expected = torch.zeros(len(positions), dim)
    for token, coordinates in enumerate(positions.tolist()):
        column = 0
        for axis, coordinate in enumerate(coordinates):
            pairs = dim // 2 // axes + (1 if axis < dim // 2 % axes else 0)
            for pair in range(pairs):
                angle = coordinate / 10_000 ** (pair / pairs)
                expected[token, column + pair] = math.sin(angle)
                expected[token, column + pairs + pair] = math.cos(angle)
            column += 2 * pairs
    torch.testing.assert_close(sincos_table(positions, dim), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", GRIDS)
def test_no_two_tokens_share_a_row_of_the_sincos_table(grid: Grid) -> None:
    table = sincos_table(grid_positions(grid), 24)
    distances = torch.cdist(table, table) + 10 * torch.eye(len(table))
    assert distances.min() > 0.1


@pytest.mark.parametrize("grid", GRIDS)
def test_rotary_scores_depend_on_differences_of_position_only(grid: Grid) -> None:
    head_dim, tokens = 16, math.prod(grid)
    query, key = torch.randn(2, 1, 1, tokens, head_dim)

    def scores(query_shift: float, key_shift: float) -> torch.Tensor:
        turned = [
            rotate(heads, rotation(rotary_angles(grid_positions(grid) + shift, head_dim).unsqueeze(0), head_dim))
            for heads, shift in ((query, query_shift), (key, key_shift))
        ]
        return turned[0] @ turned[1].transpose(-2, -1)

    torch.testing.assert_close(scores(3.0, 3.0), scores(0.0, 0.0), atol=1e-4, rtol=1e-4)
    assert (scores(3.0, 0.0) - scores(0.0, 0.0)).abs().max() > 0.1


def test_rotation_equals_multiplication_by_a_unit_complex_number() -> None:
    heads, angles = torch.randn(2, 3, 5, 8), torch.randn(2, 5, 4)
    turned = torch.view_as_complex(heads.unflatten(-1, (4, 2))) * torch.polar(torch.ones_like(angles), angles)[:, None]
    torch.testing.assert_close(rotate(heads, rotation(angles, 8)), torch.view_as_real(turned).flatten(-2))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis_rotates_the_same_number_of_pairs_and_remaining_pairs_stay(axis: int) -> None:
    positions = torch.zeros(1, 3)
    positions[0, axis] = 1.0
    turned = rotary_angles(positions, 32)[0] != 0  # 16 pairs: 5 an axis and 1 left over
    assert turned.nonzero().flatten().tolist() == list(range(5 * axis, 5 * axis + 5))


@pytest.mark.parametrize(
    ("new", "trained"), [((8, 8), (4, 4)), ((3, 10), (6, 5)), ((5,), (7,)), ((2, 3, 9), (4, 6, 3))]
)
def test_another_grid_is_stretched_over_the_extent_of_the_trained_one(new: Grid, trained: Grid) -> None:
    positions = grid_positions(new, trained)
    cell = torch.tensor([t / n for n, t in zip(new, trained, strict=True)])
    torch.testing.assert_close(positions.amin(0) - cell / 2, torch.full((len(new),), -0.5))
    torch.testing.assert_close(positions.amax(0) + cell / 2, torch.tensor(trained) - 0.5)
    torch.testing.assert_close(positions.flip(0), torch.tensor(trained) - 1 - positions)  # symmetric


def test_the_trained_grid_itself_keeps_its_positions() -> None:
    assert torch.equal(grid_positions((6, 4), (6, 4)), grid_positions((6, 4)))


def test_coarser_grids_lie_where_bilinear_interpolation_would_sample() -> None:
    ramps = grid_positions((12, 15)).T.view(1, 2, 12, 15)
    expected = F.interpolate(ramps, size=(4, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(grid_positions((4, 10), (12, 15)), expected.view(2, 40).T)
