"""The networks that a run starts from (`start_from`), and those that start fresh."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from jepa.checkpoint import Checkpoint, CheckpointError
from jepa.config import ConfigError, build
from jepa.modality import Modality
from jepa.training.config import Config
from jepa.training.stages import StageConfig, last_stage
from jepa.weights.load import read_checkpoint
from jepa.weights.outputs import with_outputs

ENCODERS = ("context_encoder", "target_encoder")


def read_start(source: str) -> Checkpoint:
    """The networks of a source, under our names, and its config; raises ConfigError.

    The tensors may be mapped: use them before the file is replaced.
    """
    try:
        found = read_checkpoint(os.path.expanduser(source), mmap=True)  # noqa: PTH111 - not every source is a path
    except CheckpointError as error:
        raise ConfigError(f"start_from: {error}") from error
    return replace(found, model=_with_a_trained_target(found))


def _with_a_trained_target(found: Checkpoint) -> dict[str, Tensor]:
    """The weights, both encoders from the evaluated one unless the target encoder was an average until the end.

    A target encoder that was frozen, or an earlier copy, may hold random weights, from which no run should average.
    """
    stages = [build(StageConfig, [{**stage, "predict": "latent"}]) for stage in found.config.get("stages", ())]
    if not stages or last_stage(stages, found.config.get("steps", 1)).averages:
        return found.model
    encoder = found.config.get("evaluate", {}).get("encoder") or "context_encoder"
    if encoder not in networks(found.model):
        return found.model
    other = next(name for name in ENCODERS if name != encoder)
    return with_both_encoders({name: value for name, value in found.model.items() if network(name) != other})


def start_weights(config: Config[Any, Any], modality: Modality[Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that its source gives to the networks `own` of a run; raises ConfigError."""
    assert config.start_from is not None
    found = with_outputs(config.start_from, read_start(config.start_from), config, modality)[0]
    return fitting(config.start_from, found, own, config.start_fresh)


def fitting(
    source: str, found: Mapping[str, Tensor], own: Mapping[str, Tensor], fresh: Sequence[str]
) -> dict[str, Tensor]:
    """The weights among `found` for the networks `own` of a run, without those that start fresh.

    Weights of networks that the run does not have are left out. Raises ConfigError if any is missing or does not fit.
    """
    wanted = {name: value for name, value in own.items() if network(name) not in fresh}
    found = with_both_encoders(found)
    if missing := sorted(networks(wanted) - networks(found)):
        needed = list(dict.fromkeys([*fresh, *missing]))
        raise ConfigError(
            f"start_from: {source} has no {' and no '.join(missing)}; start_fresh=[{','.join(needed)}] starts "
            f"{'it' if len(needed) == 1 else 'them'} with random weights"
        )
    # Files of V-JEPA 2 hold up to ten mask tokens, trained only as far as there were mask sets.
    weights = {
        name: value
        for name, value in found.items()
        if name in wanted or (network(name) in networks(wanted) and ".mask_tokens." not in name)
    }
    wrong = [name for name in sorted({*weights, *wanted}) if _shape(weights, name) != _shape(wanted, name)]
    if wrong:
        raise ConfigError(
            f"start_from: {len(wrong)} of {len(wanted)} tensors of {source} differ from the networks of this config; "
            f"the first is {wrong[0]} ({_shape(weights, wrong[0])} there, {_shape(wanted, wrong[0])} now)"
        )
    return weights


def with_both_encoders(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights; a source with a single encoder gives it to both networks."""
    both = dict(weights)
    for missing in {*ENCODERS} - networks(weights):
        one = next((name for name in ENCODERS if name != missing), "")
        both |= {name.replace(one, missing, 1): value for name, value in weights.items() if network(name) == one}
    return both


def networks(weights: Mapping[str, Tensor]) -> set[str]:
    """The names of the networks to which weights belong."""
    return {network(name) for name in weights}


def network(name: str) -> str:
    """The network to which a weight belongs."""
    return name.partition(".")[0]


def _shape(weights: Mapping[str, Tensor], name: str) -> str:
    return " x ".join(map(str, weights[name].shape)) or "a number" if name in weights else "nothing"
