"""Three steps of training, and the same steps killed and resumed."""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from jepa.checkpoint import Checkpoint, latest
from jepa.config.imports import describe_error
from jepa.console import CONSOLE
from jepa.distributed import World
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.model_config import NetworksConfig
from jepa.optim import OptimConfig
from jepa.testing.compare import global_seed, same
from jepa.train import train
from jepa.training.config import ComputeConfig, Config

_STEPS, _BATCH = 3, 4


class _KilledError(Exception):
    pass


def check_training(modality: Modality[Any], model: NetworksConfig) -> Iterator[str]:
    """A run finishes, with the same weights if it is killed before its last step and resumed."""
    quiet = CONSOLE.quiet
    CONSOLE.quiet = True
    try:
        with tempfile.TemporaryDirectory() as folder:
            try:
                whole = _train(modality, model, Path(folder, "whole"), workers=0, seed=1)
            except Exception as error:
                yield f"{_STEPS} steps fail: {describe_error(error)}"
                return
            with suppress(_KilledError):
                _train(_dying(modality), model, Path(folder, "killed"), workers=0, seed=2)
            resumed = _train(modality, model, Path(folder, "killed"), workers=1, seed=3)
    finally:
        CONSOLE.quiet = quiet
    if not same(whole.model, resumed.model):
        cause = "masks, views or samples have hidden state, or draw from a global generator"
        yield f"a run that was killed after {_STEPS - 1} of {_STEPS} steps and resumed ends with other weights: {cause}"


def _train(modality: Modality[Any], model: NetworksConfig, run_dir: Path, workers: int, seed: int) -> Checkpoint:
    kind = type(modality)
    config: Config[Any, Any] = Config(
        modality=f"{kind.__module__}:{kind.__qualname__}",
        run_dir=run_dir,
        steps=_STEPS,
        log_every=1,
        checkpoint_every=1,
        data=modality.config,
        model=model,
        optim=OptimConfig(batch_size=_BATCH),
        compute=ComputeConfig(device="cpu", workers=workers, precision="bf16"),
    )
    with global_seed(seed):
        train(config, modality, World(0, 1, torch.device("cpu")))
    return Checkpoint.load(latest(run_dir))


def _dying(modality: Modality[Any]) -> Modality[Any]:
    """The modality, except that drawing the masks of the last step raises _KilledError."""
    dying, drawn = copy.copy(modality), []

    def sample_masks(batch_size: int, generator: Generator) -> list[Masks]:
        if batch_size == _BATCH:
            drawn.append(batch_size)
            if len(drawn) == _STEPS:
                raise _KilledError
        return modality.sample_masks(batch_size, generator)

    dying.sample_masks = sample_masks  # type: ignore[method-assign]
    return dying
