"""Checks of a config before any network is built."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

from jepa.config import ConfigError
from jepa.config.imports import imported
from jepa.data import Order, seeded
from jepa.distributed import World
from jepa.modality import Modality
from jepa.probe.protocol import FunctionTask
from jepa.targets import VIEWS
from jepa.training.config import Config


def check_config(config: Config[Any, Any], modality: Modality[Any]) -> None:
    """Raise ConfigError for settings that do not fit together or do not fit the modality."""
    tokens, is_shared = config.model.predictor.mask_tokens, config.model.predictor.share_mask_token
    drawn = modality.sample_masks(1, seeded("masks", config.seed, 0))
    sets = len(drawn)
    if tokens > sets:
        raise ConfigError(f"model.predictor.mask_tokens: {sets} sets of masks cannot use {tokens} mask tokens")
    if tokens > 1 and is_shared:
        raise ConfigError(f"model.predictor.mask_tokens: {tokens}, but share_mask_token trains one; it must be 1")
    if tokens > 1 and modality.streams:  # sets differ from step to step, and evaluation's masks belong to no set
        raise ConfigError(f"model.predictor.mask_tokens: {tokens}, but it must be 1 with several streams")
    if not drawn[0].target.numel() and any(stage.predicts_tokens for stage in config.stages):
        raise ConfigError(
            "data.masking: hides no tokens to predict; only runs that predict nothing but views can do so"
        )
    _check_losses(config)
    if VIEWS in config.target_kinds:
        _check_views(config, sets + modality.local_views)
    if config.loss.visible != "none":
        _check_visible(config, modality)
    if config.model.target_input == "predicted":
        _check_target_input(config, modality, max(one.target.shape[1] for one in drawn))
    check_functions(config.evaluate.functions)


def _check_losses(config: Config[Any, Any]) -> None:
    """Raise ConfigError if nothing trains the networks, or if a part of them is not trained."""
    loss, contrast = config.loss, config.model.contrast != "none"
    needless = loss.regulariser == "none" and VIEWS not in config.target_kinds
    if config.model.projector and needless:  # several processes would wait for its gradient
        raise ConfigError("model.projector: has no effect without a loss.regulariser; set one, or projector=0")
    regularised = loss.regulariser != "none" and loss.regulariser_weight > 0
    if not (loss.prediction_weight or regularised or (contrast and loss.contrast_weight)):
        raise ConfigError("loss.prediction_weight: at 0 only a regulariser or a contrast could train the networks")


def _check_views(config: Config[Any, Any], views: int) -> None:
    """Raise ConfigError if there is one view of a sample, or if nothing keeps samples apart."""
    if views < 2:
        more = "give data.masking two entries, and set data.views=2"
        if hasattr(config.data, "mask_sets"):
            more = "set data.mask_sets=2 and data.views=2, or data.local_views"
        raise ConfigError(f"stages: predict=views compares views of a sample, and there is one; {more}")
    loss = config.loss
    spread = loss.regulariser != "none" and loss.regulariser_weight > 0
    if not spread and not all(stage.predicts_tokens for stage in config.stages):
        raise ConfigError("loss.regulariser: views alone collapse without one; set sigreg, visreg or vicreg")


def _check_visible(config: Config[Any, Any], modality: Modality[Any]) -> None:
    """Raise ConfigError for networks or targets that a loss on visible tokens cannot be used with."""
    predictor = config.model.predictor
    if not all("latent" in stage.predict for stage in config.stages):
        raise ConfigError("loss.visible: predicts representations; every stage must predict latent")
    if predictor.attention != "self" or predictor.blocks != "joint":
        raise ConfigError("loss.visible: needs model.predictor.attention=self and model.predictor.blocks=joint")
    if modality.streams:
        raise ConfigError(f"loss.visible: {config.modality} data has several streams; it works with one")
    masking = getattr(config.data, "masking", ())
    kinds = masking if isinstance(masking, tuple) else (masking,)
    if config.loss.visible == "distance" and any(getattr(one, "predicted", 1.0) < 1 for one in kinds):
        raise ConfigError("loss.visible: distance is to the nearest hidden token; it needs data.masking.predicted=1")


def _check_target_input(config: Config[Any, Any], modality: Modality[Any], blocks: int) -> None:
    """Raise ConfigError for what needs targets of visible tokens, or splits tokens into streams or target blocks."""
    if config.loss.visible != "none":
        raise ConfigError("loss.visible: visible tokens have targets only under model.target_input=all")
    if modality.streams:
        raise ConfigError(f"model.target_input: {config.modality} data has several streams; predicted works with one")
    if blocks > 1:
        raise ConfigError(f"model.target_input: the masks have {blocks} target blocks; predicted works with one")


def check_functions(tasks: Sequence[FunctionTask]) -> None:
    """Raise ConfigError for custom metrics that cannot be imported or called, or that are listed twice."""
    for number, task in enumerate(tasks):
        if task.name in (other.name for other in tasks[:number]):
            raise ConfigError(f"evaluate.functions.{number}: {task.name} is listed twice; a metric has one row")
        try:
            function = imported(task.function)
        except ValueError as error:
            raise ConfigError(f"evaluate.functions.{number}: {error}") from error
        if not callable(function):
            raise ConfigError(f"evaluate.functions.{number}: {task.function} is not a function")
        try:
            inspect.signature(function).bind(None)
        except TypeError as error:
            raise ConfigError(
                f"evaluate.functions.{number}: {task.function} cannot be called with one argument, the samples of all "
                f"splits: {error}"
            ) from error
        except ValueError:  # a built-in function does not show its arguments
            continue


def batch_order(config: Config[Any, Any], modality: Modality[Any], world: World) -> Order:
    """The order of this process's samples; raises ConfigError if the batch does not divide."""
    batch_size, accumulate = config.optim.batch_size, config.optim.accumulate
    if batch_size % (world.size * accumulate) or batch_size < 2 * world.size * accumulate:
        parts = f" and {accumulate} micro-batches" if accumulate > 1 else ""
        raise ConfigError(
            f"optim.batch_size: {batch_size} samples do not divide among {world.size} processes{parts} into equal "
            "shares of at least 2"
        )
    share, groups = batch_size // (world.size * accumulate), modality.mask_groups
    if groups and not groups.equal and groups.size < batch_size and math.gcd(share, groups.size) < 2:
        raise ConfigError(
            f"data.masking.legacy_group: {groups.size} and the {share} samples of a pass have no common factor, so "
            "each would need a pass of its own; choose a batch that is a multiple of the group"
        )
    return Order(seed=config.seed, batch_size=batch_size, rank=world.rank, world_size=world.size, accumulate=accumulate)
