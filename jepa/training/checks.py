"""Checks of a config that need no networks."""

from typing import Any

from jepa.checkpoint import latest
from jepa.config import ConfigError
from jepa.data import Order, seeded
from jepa.distributed import World
from jepa.modality import Modality
from jepa.protocol import check_functions
from jepa.training.config import Config


def check_networks(config: Config[Any, Any], modality: Modality[Any]) -> None:
    """Raise ConfigError for what can be told before the networks are built: their start, mask tokens, losses."""
    start, tokens = config.start_from, config.model.predictor.mask_tokens
    if start is not None and not latest(config.run_dir).exists() and not start.expanduser().exists():
        raise ConfigError(f"start_from: no checkpoint at {start}")
    sets = len(modality.sample_masks(1, seeded("masks", config.seed, 0)))
    if tokens > sets:
        raise ConfigError(f"model.predictor.mask_tokens: {tokens} cannot all be used by {sets} sets of masks")
    if tokens > 1 and modality.streams:  # their sets come and go, and evaluation asks for what no set had
        raise ConfigError(f"model.predictor.mask_tokens: {tokens}, but where tokens are of several streams it is 1")
    _check_losses(config, modality)
    check_functions(config.evaluate.functions)


def _check_losses(config: Config[Any, Any], modality: Modality[Any]) -> None:
    """Raise ConfigError for losses without effect; not when a run is loaded, as what it learned stays what it is."""
    loss, contrast = config.loss, config.model.contrast != "none"
    for name in ("invariance", "agreement"):
        if getattr(loss, name) and loss.regulariser == "none":
            raise ConfigError(f"loss.{name}: acts within the weight of loss.regulariser; set one, or {name} to 0")
    if loss.agreement and len(modality.streams) < 2:
        raise ConfigError(f"loss.agreement: {config.modality} data has no two streams that could agree; set it to 0")
    if loss.contrast_weight != 1 and not contrast:
        raise ConfigError("loss.contrast_weight: there is no contrast that it weighs; set model.contrast, or leave 1")
    regularised = loss.regulariser != "none" and loss.regulariser_weight > 0
    if not (loss.prediction_weight or regularised or (contrast and loss.contrast_weight)):
        raise ConfigError("loss.prediction_weight: at 0 nothing is learned without a regulariser or a contrast")


def batch_order(config: Config[Any, Any], world: World) -> Order:
    """Which samples this process sees when; raises ConfigError where the batch does not divide."""
    batch_size, accumulate = config.optim.batch_size, config.optim.accumulate
    if batch_size % (world.size * accumulate) or batch_size < 2 * world.size * accumulate:
        parts = f" and {accumulate} micro-batches" if accumulate > 1 else ""
        raise ConfigError(
            f"optim.batch_size: {batch_size} samples do not divide among {world.size} processes{parts} into 2 or more "
            "each"
        )
    return Order(seed=config.seed, batch_size=batch_size, rank=world.rank, world_size=world.size, accumulate=accumulate)
