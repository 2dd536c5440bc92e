"""Weight files of other families: read without executing anything, and loaded with nothing missing."""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa.checkpoint import CheckpointError
from jepa.console import CONSOLE, shown
from jepa.weights.formats.stored import open_stored

# Of a file with several networks, the first of these counts.
_NETWORKS = ("state_dict_ema", "model_ema", "teacher", "target_encoder", "state_dict", "model")
_IMAGE_TOWERS = ("visual.", "vision_model.", "params/img/")  # of CLIP, of transformers, and of SigLIP's authors
_WRAPPERS = re.compile(r"^(?:_orig_mod\.|module\.|backbone\.)+")  # of compiled and parallel models, and of DINO


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of one network in a file; raises CheckpointError."""
    with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts store their arguments
        content: Any = open_stored(path).content
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((content[name] for name in _NETWORKS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    found = (
        {_WRAPPERS.sub("", name): one for name, one in content.items() if isinstance(one, Tensor)}
        if (isinstance(content, Mapping))
        else {}
    )
    if not found:
        raise CheckpointError(f"{path} holds no weights of a network; looked for {', '.join(_NETWORKS)}")
    return found


def load_strictly(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    left_out: Iterable[str],
    path: Path,
    name: object,
    dropped: Iterable[str] = (),
) -> None:
    """Load weights; every one of the network must be there, and others must start with a prefix of `left_out`.

    dropped: names in the file that are not among the weights any more. Prints what is left out. Raises CheckpointError.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in weights]
    others = [key for key in weights if key not in own]
    strange = [key for key in others if not key.startswith(tuple(left_out))]
    wrong = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if missing or strange or wrong:
        raise CheckpointError(
            f"the weights in {path} are not those of {name}: {_flaw(own, weights, missing, wrong, strange)}"
        )
    network.load_state_dict({key: weights[key] for key in own})
    say_left_out(path, [*others, *dropped])


def say_left_out(path: Path, names: Sequence[str]) -> None:
    """Print how many weights of a file are left out, and of which parts they are."""
    if names:
        heads = ", ".join(dict.fromkeys(re.split(r"[./]", name)[0] for name in names))
        CONSOLE.print(shown(f"{path}: {len(names)} weights are not of the encoder and are left out ({heads})"))


def of_other_towers(names: Iterable[str]) -> list[str]:
    """The weights of a file of CLIP or SigLIP that are not of its image tower; none for other files."""
    names = list(names)
    tower = next((one for one in _IMAGE_TOWERS if any(name.startswith(one) for name in names)), "")
    return [name for name in names if not name.startswith(tower)]


def _flaw(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], missing: list[str], wrong: list[str], strange: list[str]
) -> str:
    if wrong:
        key = wrong[0]
        return f"{key} is {list(weights[key].shape)} there, and {list(own[key].shape)} in this architecture"
    if missing:
        return f"{len(missing)} of its {len(own)} weights are missing, such as {missing[0]}"
    return f"{len(strange)} weights belong to no part of it, such as {strange[0]}"


def downloaded(name: object, where: str, fetch: Callable[[], str]) -> Path:
    """The file that `fetch` downloads; raises CheckpointError with what to do instead."""
    try:
        return Path(fetch())
    except Exception as error:  # the libraries raise no common type for a failed download
        raise CheckpointError(
            f"the weights of {name} cannot be downloaded from {where} ({type(error).__name__}); download the file on a "
            f"machine with network access and name it, as in {name}@FILE, or compare the architecture with random "
            f"weights, {name}@random"
        ) from error
