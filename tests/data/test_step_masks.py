"""Masks of a step: a process draws only the groups that it needs, and their number changes nothing."""

from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch
from small_runs import small
from tiny import Noise, noise
from torch import Generator

from jepa.config import ConfigError
from jepa.data import Order, seeded
from jepa.data.batches import Batch
from jepa.data.masks import step_masks
from jepa.distributed import World
from jepa.masking import BlockMaskConfig, FunctionMaskConfig, MaskGroups, Masks, TubeMaskConfig, mask_groups
from jepa.model import JEPA
from jepa.train import backward
from jepa.training.checks import batch_order
from modalities.image.config import ImageConfig
from modalities.image.modality import Image
from modalities.video.config import VideoConfig
from modalities.video.modality import Video

ORDER = Order(seed=3, batch_size=32)


class Counted(Noise):
    """Notes the samples that it draws masks for, and the first number of each group's own generator."""

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        self.drawn = [*getattr(self, "drawn", []), batch_size]
        return super().sample_masks(batch_size, generator)


def counted(strategy: Any, groups: MaskGroups | None) -> Counted:
    config, _ = small("data.sets=2")
    modality = Counted(replace(config.data, masking=strategy))
    modality.mask_groups = groups
    return modality


def of_samples(sets: list[Masks], accumulate: int) -> list[list[list[int]]]:
    """Context, then targets, of every sample, in order, for all sets."""
    parts = Batch([], sets, []).split(accumulate)
    return [
        [[*context, -1, *target] for part in parts for context, target in zip(*_lists(part.masks[number]), strict=True)]
        for number in range(len(sets))
    ]


def _lists(masks: Masks) -> tuple[list[list[int]], list[list[int]]]:
    return masks.context.tolist(), masks.target.flatten(1).tolist()


@pytest.mark.parametrize(("legacy", "size"), [("none", 8), ("none", 12), ("ijepa", 8), ("ijepa", 12)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_any_number_of_processes_gives_the_same_masks_and_draws_no_other_groups(
    legacy: Any, size: int, accumulate: int
) -> None:
    modality = counted(BlockMaskConfig(targets=2, legacy=legacy), MaskGroups(size, equal=legacy == "none"))
    for step in range(3):
        whole = of_samples(step_masks(modality, ORDER, step), 1)
        for processes in (2, 4):
            seen: list[list[Any]] = [[None] * 32, [None] * 32]
            for rank in range(processes):
                order = replace(ORDER, rank=rank, world_size=processes, accumulate=accumulate)
                modality.drawn = []
                parts = of_samples(step_masks(modality, order, step), accumulate)
                assert len(modality.drawn) == len({row // size for row in order.rows})
                for number, samples in enumerate(parts):
                    for row, sample in zip(order.rows, samples, strict=True):
                        seen[number][row] = sample
            assert seen == whole
        assert len({tuple(sample) for sample in whole[0]}) > 25  # groups have placements of their own


def test_a_batch_in_one_group_is_drawn_as_before_there_were_groups() -> None:
    for groups in (None, MaskGroups(32)):
        modality = counted(BlockMaskConfig(targets=2), groups)
        drawn = modality.sample_masks(32, seeded("masks", 3, 5))
        for masks, expected in zip(step_masks(modality, ORDER, 5), drawn, strict=True):
            assert torch.equal(masks.context, expected.context)
            assert torch.equal(masks.target, expected.target)


def test_legacy_masks_in_groups_keep_as_many_context_tokens_as_those_of_a_published_gpu() -> None:
    def lengths(group: int | None, steps: int) -> list[int]:
        masking = BlockMaskConfig(legacy="ijepa", legacy_group=group)
        modality = Image(ImageConfig(source="scenes", image_size=224, patch_size=14, masking=masking))
        order = Order(seed=0, batch_size=2048, rank=3, world_size=16)
        return [step_masks(modality, order, step)[0].context.shape[1] for step in range(steps)]

    in_groups, whole = lengths(128, 60), lengths(None, 4)
    assert fmean(in_groups) == pytest.approx(68, abs=4)
    assert fmean(in_groups[:4]) > fmean(whole) + 4  # the same sizes of blocks, cut to the shortest of 2,048


def test_groups_that_would_leave_one_sample_to_a_pass_are_refused() -> None:
    config, modality = small("data.masking={kind: block, targets: 2, legacy: ijepa, legacy_group: 7}")
    modality.mask_groups = mask_groups([config.data.masking])
    of_32 = replace(config, optim=replace(config.optim, batch_size=32))
    with pytest.raises(ConfigError, match=r"legacy_group: 7 and the 32 samples of a pass have no common factor"):
        batch_order(of_32, modality, World(0, 1, torch.device("cpu")))


def test_a_forward_pass_holds_one_group_and_the_gradient_is_the_mean_over_groups() -> None:
    masking = "data.masking={kind: block, targets: 2, legacy: ijepa, legacy_group: 8}"
    config, modality = small(masking, "compute.precision=fp32")
    modality.mask_groups = mask_groups([config.data.masking])
    model = JEPA(config.model, modality)
    masks = step_masks(modality, ORDER, 0)
    assert len({context for context, _ in masks[0].counts}) > 1
    assert masks[0].mean_counts()[0] < masks[0].context.shape[1]
    batch = Batch([noise(32, (8, 12))], masks, [])
    loss, _ = backward(config, 0, model, batch)
    gradient = model.predictor.embed.weight.grad
    means = []
    for rank in range(4):
        model.predictor.embed.weight.grad = None
        part = step_masks(modality, replace(ORDER, rank=rank, world_size=4), 0)
        means.append(backward(config, 0, model, Batch([batch.views[0][8 * rank : 8 * rank + 8]], part, []))[0])
        gradient = gradient - model.predictor.embed.weight.grad / 4
    assert torch.stack(means).mean() == pytest.approx(float(loss), rel=1e-5)
    assert gradient.abs().max() < 1e-6


def test_strategies_agree_on_their_groups() -> None:
    legacy, other = TubeMaskConfig(legacy="vjepa", legacy_group=24), TubeMaskConfig(legacy="vjepa", legacy_group=10)
    whole, function = TubeMaskConfig(legacy="vjepa"), FunctionMaskConfig(function="own_functions:halves")
    unbiased = TubeMaskConfig()
    assert mask_groups([legacy, unbiased]) == MaskGroups(24, equal=False)
    assert mask_groups([whole, unbiased]) is None
    assert mask_groups([function]) is None
    assert mask_groups([unbiased, unbiased]) == MaskGroups(256)
    for wrong in ([legacy, other], [legacy, whole], [legacy, function]):
        with pytest.raises(ValueError, match=r"legacy_group must be the same in all strategies"):
            mask_groups(wrong)
    assert Video(VideoConfig(source="scenes", masking=(legacy,))).mask_groups == MaskGroups(24, equal=False)
