"""The predictor: separate blocks do not influence each other, joint ones do; positions select the targets."""

import itertools

import pytest
import torch
from tiny import random_masks, randomise
from torch import Tensor

from jepa.encoder import PositionKind
from jepa.masking import Masks
from jepa.positions import grid_positions
from jepa.predictor import Predictor, PredictorConfig, PredictorTask

KINDS: tuple[PositionKind, ...] = ("sincos", "rotary")
MASKS = random_masks(2)
CONTEXT = torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(0))


def predictor_of(positions: PositionKind, attention: str, blocks: str) -> Predictor:
    task = PredictorTask(
        inputs=24, outputs=10, positions=grid_positions((4, 6)), position_kind=positions, initialisation="xavier"
    )
    predictor = Predictor(PredictorConfig(width=16, depth=2, heads=2, attention=attention, blocks=blocks), task)
    randomise(predictor)
    return predictor


def influence_of_second_block_on_first(predictor: Predictor) -> Tensor:
    """Change of the predictions of block 0 if block 1 gets the positions of block 2."""
    asked = MASKS.target.clone()
    asked[:, 1] = asked[:, 2]
    moved = predictor(CONTEXT, Masks(MASKS.context, asked)) - predictor(CONTEXT, MASKS)
    assert moved[:, 1].abs().max() > 0.01
    return moved[:, 0].abs().max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("attention", "blocks"), [("self", "separate"), ("cross", "separate"), ("cross", "joint")])
def test_separate_blocks_do_not_influence_each_other(kind: PositionKind, attention: str, blocks: str) -> None:
    assert influence_of_second_block_on_first(predictor_of(kind, attention, blocks)) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_joint_blocks_influence_each_other(kind: PositionKind) -> None:
    assert influence_of_second_block_on_first(predictor_of(kind, "self", "joint")) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_separate_and_joint_blocks_agree_if_mask_tokens_do_not_attend_to_each_other(kind: PositionKind) -> None:
    separate, joint = (predictor_of(kind, "cross", blocks)(CONTEXT, MASKS) for blocks in ("separate", "joint"))
    torch.testing.assert_close(separate, joint)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["self", "cross"])
def test_separate_blocks_equal_one_call_per_block(kind: PositionKind, attention: str) -> None:
    predictor = predictor_of(kind, attention, "separate")
    alone = [predictor(CONTEXT, Masks(MASKS.context, MASKS.target[:, [block]])) for block in range(3)]
    torch.testing.assert_close(predictor(CONTEXT, MASKS), torch.cat(alone, dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("attention", "blocks"), itertools.product(["self", "cross"], ["separate", "joint"]))
def test_predictions_depend_on_the_positions_of_targets_and_context(
    kind: PositionKind, attention: str, blocks: str
) -> None:
    predictor = predictor_of(kind, attention, blocks)
    predicted = predictor(CONTEXT, MASKS)
    assert predicted.shape == (2, 3, 4, 10)
    backwards = predictor(CONTEXT, Masks(MASKS.context, MASKS.target.flip(2)))
    torch.testing.assert_close(backwards.flip(2), predicted, atol=1e-4, rtol=1e-3)
    assert torch.pdist(predicted[0].detach().flatten(0, 1)).min() > 1e-3  # all predictions differ
    moved = predictor(CONTEXT, Masks(MASKS.context.flip(1), MASKS.target))
    assert (moved - predicted).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("attention", "blocks"), itertools.product(["self", "cross"], ["separate", "joint"]))
def test_a_padded_sample_is_predicted_as_if_alone_without_padding(
    kind: PositionKind, attention: str, blocks: str
) -> None:
    """Absent context tokens have no influence, and neither have absent targets."""
    predictor = predictor_of(kind, attention, blocks)
    valid = torch.arange(24) < torch.tensor([[24], [15]])
    predicted = predictor(CONTEXT, MASKS.bind(valid))
    seen, asked = valid.gather(1, MASKS.context), valid.gather(1, MASKS.target.flatten(1)).view(2, 3, 4)
    assert not seen.all()
    assert not asked.all()
    other = torch.where(seen.unsqueeze(-1), CONTEXT, torch.randn(CONTEXT.shape))
    assert torch.equal(predictor(other, MASKS.bind(valid))[asked], predicted[asked])
    for row in range(2):
        context, kept = CONTEXT[[row]][:, seen[row]], MASKS.context[[row]][:, seen[row]]
        if blocks == "joint":
            hidden = MASKS.target[[row]].flatten(1)[:, asked[row].flatten()].unsqueeze(1)
            expected = predictor(context, Masks(kept, hidden))[0, 0]
        else:
            parts = [MASKS.target[row, block][asked[row, block]] for block in range(3)]
            alone = [predictor(context, Masks(kept, part[None, None]))[0, 0] for part in parts if len(part)]
            expected = torch.cat(alone)
        torch.testing.assert_close(predicted[row][asked[row]], expected, atol=1e-4, rtol=1e-4)
