"""Read trained networks from run directories, checkpoint files and weights of other projects."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa.checkpoint import Checkpoint
from jepa.checkpoint.file import RUN_FILE, Step, find_checkpoint
from jepa.config import ConfigError, Tree, as_tree, build
from jepa.encoder import TokenEncoder
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.plugins.registry import modality_class
from jepa.positions import grid_positions
from jepa.probe.protocol import Which
from jepa.training.config import Config
from jepa.weights.given import check_networks, with_weights


def read_checkpoint(run: Path | str, mmap: bool = False, step: Step | None = None) -> Checkpoint:
    """Checkpoint of a run directory, the latest or that of a step, or of a file, ours or of another project.

    run: also a shared folder, or a name, see `located`. mmap: as in `Checkpoint.load`; tensors of other projects are
    always mapped. Raises CheckpointError.
    """
    from jepa.weights.formats import read_stored  # most runs start from no other networks
    from jepa.weights.formats.folder import is_folder, read_folder
    from jepa.weights.formats.stored import CONFIG, check_folder, open_stored
    from jepa.weights.places import located

    path = located(run)
    if step is None and is_folder(path):
        return read_folder(path, mmap)
    is_run = (path / "checkpoints").exists() or (path / RUN_FILE).exists()
    if step is None and path.is_dir() and not is_run and not (path / "config.yaml").exists():
        check_folder(path)
    if step is not None or is_run or not (path.is_file() or (path / CONFIG).exists()):
        return Checkpoint.load(find_checkpoint(path, step), mmap=mmap)
    stored = open_stored(path)
    if isinstance(stored.content, dict) and "format" in stored.content:
        return Checkpoint.of(path, stored.content) if mmap else Checkpoint.load(path)
    return read_stored(stored)


def read_networks(path: Path) -> dict[str, Tensor]:
    """Weights of a source under our names; use them before the file is replaced. Raises CheckpointError."""
    return read_checkpoint(path, mmap=True).model


def configured(checkpoint: Checkpoint, layers: Sequence[Tree | str] = ()) -> tuple[Config[Any, Any], Modality[Any]]:
    """Config of a checkpoint, changed by layers and then by `section.key=value` texts, and its modality."""
    modality_type = modality_class(checkpoint.config["modality"])
    config_type = Config.of(modality_type)
    changed = as_tree(layers, config_type)
    config: Config[Any, Any] = build(config_type, [checkpoint.config, changed])
    data = changed.get("data", {})
    if "source" in config.data.completed and "root" in data and "source" not in data:
        return _on_another_root(modality_type, config)
    return construct(modality_type, config)


def _on_another_root(
    modality_type: type[Modality[Any]], config: Config[Any, Any]
) -> tuple[Config[Any, Any], Modality[Any]]:
    """As `construct`, with the source that the root holds; if that is not plain, with the source of the run."""
    try:
        return construct(modality_type, replace(config, data=replace(config.data, source=None)))
    except ConfigError:
        root, source = config.data.root, config.data.source
        if root is None or not root.expanduser().exists() or source == config.data.world:
            raise
    return construct(modality_type, config)


def construct(modality_type: type[Modality[Any]], config: Config[Any, Any]) -> tuple[Config[Any, Any], Modality[Any]]:
    """The modality of a config, and the config with the settings that the modality completes from its data.

    Raises ConfigError for settings that cannot work, such as masks that do not fit the grid.
    """
    try:
        modality = modality_type.of(config.data, config.model)
    except (OSError, ValueError) as error:
        raise ConfigError(f"data: {error}") from error
    if not isinstance(getattr(modality, "config", None), modality_type.config_type):
        raise ConfigError(f"{modality_type.__name__} has no config: its __init__ must call super().__init__(config)")
    if (extent := modality.config.position_grid) and len(extent) != len(modality.grid):
        grid = " x ".join(map(str, modality.grid))
        raise ConfigError(f"data.position_grid: has {len(extent)} axes, and tokens lie on a grid of {grid}")
    return replace(config, data=modality.config), modality


def encoder_of(checkpoint: Checkpoint, config: Config[Any, Any], modality: Modality[Any], which: Which) -> TokenEncoder:
    """Trained encoder in evaluation mode; positions are interpolated if the token grid differs from training.

    Those of released V-JEPA 2 weights go on beyond the trained grid instead, as in its code. Raises MismatchError if
    any network of the checkpoint does not fit, also one that is not asked for.
    """
    trained_config, trained = configured(checkpoint)
    known = tuple(kind for kind in trained_config.target_kinds if ":" not in kind)  # functions are not imported
    unknown = "" if known == trained_config.target_kinds else "predictor.project."
    check_networks(lambda: JEPA(trained_config.model, trained, known), checkpoint.model, unknown)
    prefix = f"{which}."
    weights = {name.removeprefix(prefix): one for name, one in checkpoint.model.items() if name.startswith(prefix)}
    encoder = with_weights(lambda: modality.encoder(config.model), weights)
    if modality.grid != trained.grid:
        encoder.set_positions(scaled_positions(config, modality, trained))
    return encoder


def scaled_positions(config: Config[Any, Any], modality: Modality[Any], trained: Modality[Any]) -> Tensor:
    """The positions of a grid of tokens for networks that were trained on another one: [N, A]."""
    trained_grid = None if config.model.positions.startswith("rotary_vjepa2") else trained.grid
    return grid_positions(modality.grid, trained.config.position_grid or trained_grid)


def model_of(checkpoint: Checkpoint, config: Config[Any, Any], modality: Modality[Any]) -> JEPA:
    """All trained networks in evaluation mode, on the token grid of training."""
    return with_weights(lambda: JEPA(config.model, modality, config.target_kinds), checkpoint.model)


def untrained_encoder(config: Config[Any, Any], modality: Modality[Any]) -> TokenEncoder:
    """The encoder at step 0 of a run, without pretrained weights, in evaluation mode; a run draws it first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder: TokenEncoder = modality.encoder(config.model)
    return encoder.eval().requires_grad_(False)


def untrained_model(config: Config[Any, Any], modality: Modality[Any]) -> JEPA:
    """All networks at step 0 of a run, without pretrained weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = JEPA(config.model, modality, config.target_kinds)
    return model.eval().requires_grad_(False)
