"""FLOPs of a run, counted on the meta device."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from jepa.data import DataError
from jepa.data.masks import group_masks
from jepa.loss import prediction_loss
from jepa.masking import Masks
from jepa.modality import BadSampleError, Modality
from jepa.model import JEPA
from jepa.model_config import ModelConfig
from jepa.targets import TargetKind
from jepa.training.config import Config

DRAWS = 16  # draws of masks over which FLOPs and tokens are averaged
_FEW_BLOCKS = 8  # in the shallow networks that stand for a deep one


def run_flops(config: Config[Any, Any], modality: Modality[Any]) -> float:
    """FLOPs of a run; a multiply-add counts as two."""
    steps = sum(stage.steps * sample_flops(config, modality, stage.weights) for stage in config.timeline)
    return steps * config.optim.batch_size


def sample_flops(config: Config[Any, Any], modality: Modality[Any], weights: Mapping[TargetKind, float]) -> float:
    """FLOPs of one sample, forward and backward, with these kinds of target; recomputed activations are included.

    Averaged over masks drawn for whole batches, as the size of masks may depend on the batch size.
    """
    first_rows = [[mask[slice(1)].to("meta") for mask in masks] for masks in first_masks(config, modality)]
    number = Counter(map(repr, first_rows))  # masks of equal shapes have equal FLOPs
    different = {repr(masks): masks for masks in first_rows}
    total = 0
    for factor, part in _shallow(config, modality):
        count = _counter_of(part, modality, weights)
        total += factor * sum(number[shapes] * count(masks) for shapes, masks in different.items())
    return total / DRAWS


def _counter_of(
    config: Config[Any, Any], modality: Modality[Any], weights: Mapping[TargetKind, float]
) -> Callable[[list[Masks]], int]:
    """A function from masks of one sample to its FLOPs."""
    view, model = example_view(modality), networks(config, modality)
    inputs, local = (
        tree_map(lambda leaf: torch.empty(1, *leaf.shape, dtype=leaf.dtype, device="meta"), one)
        for one in (view, local_views(modality))
    )
    model.set_activation_checkpointing(config.compute.activation_checkpointing)

    def count(masks: list[Masks]) -> int:
        with FlopCounterMode(display=False) as counter:
            output = model([inputs] * modality.views, masks, tuple(weights), local)
            prediction_loss(output.predictions, config.loss, weights, output.local).backward()
        flops: int = counter.get_total_flops()
        return flops

    return count


def _shallow(config: Config[Any, Any], modality: Modality[Any]) -> list[tuple[int, Config[Any, Any]]]:
    """Configs with one or two blocks, or few more than levels, each with a factor; their FLOPs add up to the config's.

    All blocks of a network have the same FLOPs, and counting those of every block of a large one takes minutes. Custom
    encoders and targets, and targets in layers that are no levels, are counted as they are.
    """
    model = config.model
    blocks, predicting = model.depth, model.predictor.depth
    is_plain = type(model) is ModelConfig and type(modality).encoder is Modality.encoder
    is_usual = (
        is_plain and model.target_layers in (1, model.levels) and not any(":" in kind for kind in config.target_kinds)
    )
    if not is_usual or blocks + predicting <= _FEW_BLOCKS:
        return [(1, config)]
    least = max(1, len(model.levels))

    def of_depths(encoder: int, predictor: int) -> Config[Any, Any]:
        levels = (*range(1, least), encoder) if model.levels else ()
        layers = 1 if model.target_layers == 1 else levels
        size, narrow = replace(model.vit, depth=encoder), replace(model.predictor, depth=predictor)
        return replace(config, model=replace(model, size=size, predictor=narrow, levels=levels, target_layers=layers))

    return [
        (2 + least - blocks - predicting, of_depths(least, 1)),
        (blocks - least, of_depths(least + 1, 1)),
        (predicting - 1, of_depths(least, 2)),
    ]


def encoder_flops(config: Config[Any, Any], modality: Modality[Any]) -> int:
    """FLOPs to embed all tokens of one sample with the evaluated encoder."""
    encoder = getattr(networks(config, modality), config.evaluated_encoder)
    view = tree_map(lambda leaf: torch.empty(1, *leaf.shape, dtype=leaf.dtype, device="meta"), example_view(modality))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(view)
    flops: int = counter.get_total_flops()
    return flops


def networks(config: Config[Any, Any], modality: Modality[Any]) -> JEPA:
    """The networks of a run on the meta device."""
    with torch.device("meta"):
        return JEPA(config.model, modality, config.target_kinds)


def first_masks(config: Config[Any, Any], modality: Modality[Any]) -> list[list[Masks]]:
    """Masks of the first steps, for the first group of each batch."""
    return [group_masks(modality, config.seed, step, config.optim.batch_size) for step in range(DRAWS)]


def example_view(modality: Modality[Any], from_loader: bool = False) -> Any:
    """A view of the right shape; raises DataError if finding the shape needs data that is missing.

    from_loader: the view as the loader sends it.
    """
    with _needing_data():
        return modality.example_loader_view() if from_loader else modality.example_view()


def local_views(modality: Modality[Any], from_loader: bool = False) -> list[Any]:
    """The smaller views of a sample; only their shapes matter. See `example_view`."""
    if not modality.local_views:
        return []
    with _needing_data():
        view = modality.example_local_view()
    if not from_loader:
        view = tree_map(lambda leaf: leaf[0], modality.to_network(tree_map(lambda leaf: leaf.unsqueeze(0), view)))
    return [view] * modality.local_views


@contextmanager
def _needing_data() -> Iterator[None]:
    """Raise DataError where the body reads data that is not there."""
    try:
        yield
    except (OSError, ValueError, IndexError, BadSampleError) as error:
        raise DataError(f"data: no sample shows the shape of a view: {error}") from error
