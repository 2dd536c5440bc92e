"""Checks that need no data: the class, the config, tokens, construction and pickling."""

import math
import pickle
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from yaml import YAMLError

from jepa.config import ConfigError, build, differences, parse_yaml, plain, to_yaml
from jepa.config.imports import describe_error
from jepa.data import seeded
from jepa.modality import Modality
from jepa.model_config import NetworksConfig
from jepa.plugins.registry import class_flaw
from jepa.testing.compare import same


def check_class(modality: Modality[Any]) -> Iterator[str]:
    """It is an instance of a valid modality class."""
    if isinstance(modality, type):
        yield f"expected an instance, not the class: check_modality({modality.__name__}(config))"
    elif flaw := class_flaw(type(modality)):
        yield f"{type(modality).__name__} {flaw}"


def check_config(modality: Modality[Any]) -> Iterator[str]:
    """The config has the type `config_type`, is frozen, and survives YAML unchanged."""
    config, wanted = getattr(modality, "config", None), modality.config_type
    if type(config) is not wanted:
        hint = "let __init__ pass its argument to super().__init__(config)"
        yield f"modality.config is a {type(config).__name__}, not the config_type {wanted.__name__}; {hint}"
        return
    if not wanted.__dataclass_params__.frozen:
        yield f"{wanted.__name__} is not frozen; write @dataclass(frozen=True, kw_only=True) over it"
    try:
        again = build(wanted, [parse_yaml(to_yaml(config), "the config")])
    except (ConfigError, TypeError, ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())
        yield f"{wanted.__name__} cannot be written to YAML and read back: {reason}"
        return
    if again != config:
        lines = differences(plain(config), plain(again)) or ["a value changes its type"]
        yield f"{wanted.__name__} changes when it is written to YAML and read back: {'; '.join(lines)}"


def check_construction(modality: Modality[Any], model: NetworksConfig) -> Iterator[str]:
    """The config alone gives the same modality, as runs and evaluations construct it."""
    name = type(modality).__name__
    try:
        again = type(modality).of(modality.config, model)
    except Exception as error:
        cause = describe_error(error)
        yield f"a run constructs it by {name}.of(config, model), by default {name}(config), which fails: {cause}"
        return
    attributes = ("config", "grid", "views", "forecast_axis")
    different = [one for one in attributes if getattr(modality, one) != getattr(again, one)]
    if different or not same(modality.positions, again.positions):
        what = f"another {different[0]}" if different else "other positions"
        yield f"{name}.of(config, model), which a run constructs, has {what}: everything must follow from the config"


def check_tokens(modality: Modality[Any]) -> Iterator[str]:
    """Grid, positions, streams, views and forecast axis fit together."""
    grid = getattr(modality, "grid", None)
    if not (isinstance(grid, tuple) and grid and all(type(length) is int and length > 0 for length in grid)):
        yield f"grid is {grid!r}; __init__ must set a tuple of the number of tokens along each axis, each 1 or more"
        return
    yield from _check_positions(modality)
    if modality.streams:
        yield from _check_streams(modality)
    if not (type(modality.views) is int and modality.views > 0):
        yield f"views is {modality.views!r}; expected the number of views per sample and step, 1 or more"
    axis = modality.forecast_axis
    if axis is not None and axis not in range(len(grid)):
        yield f"forecast_axis is {axis!r}, but the grid has {len(grid)} axes, counted from 0"


def _check_positions(modality: Modality[Any]) -> Iterator[str]:
    positions, tokens = modality.positions, math.prod(modality.grid)
    if not isinstance(positions, Tensor) or positions.dim() != 2:
        yield "positions must be a tensor [N, A], coordinates of every token along A axes"
        return
    if not modality.streams and positions.shape != (tokens, len(modality.grid)):
        expected = f"[{tokens}, {len(modality.grid)}]"
        yield f"positions is {list(positions.shape)}; expected {expected}, a row per token of the grid {modality.grid}"
    if not positions.double().isfinite().all():
        yield "positions holds coordinates that are not finite"
    counts = torch.unique(positions, dim=0, return_counts=True)
    if (counts[1] > 1).any():
        shared = counts[0][counts[1] > 1][0].tolist()
        yield f"positions: {int(counts[1].max())} tokens are at {shared}, so that no predictor can distinguish them"


def _check_streams(modality: Modality[Any]) -> Iterator[str]:
    tokens, every = len(modality.positions), torch.cat([stream.tokens for stream in modality.streams])
    if not torch.equal(every.sort().values, torch.arange(tokens)):
        yield f"streams must hold every one of the {tokens} tokens of `positions` exactly once"
    first, count = modality.streams[0], math.prod(modality.grid)
    if not torch.equal(first.tokens[:count], torch.arange(count)):
        yield f"streams: the first {count} tokens, those on the grid, must be the first tokens of '{first.name}'"
    for stream in modality.streams:
        if stream.summary not in stream.tokens:
            yield f"streams: the summary of '{stream.name}', token {stream.summary}, is not one of its tokens"


def check_pickling(modality: Modality[Any]) -> Iterator[str]:
    """Pickled copies, which worker processes receive, behave like the modality and its data sets."""
    pickled = "worker processes receive a pickled copy of"
    try:
        copy = pickle.loads(pickle.dumps(modality))
    except Exception as error:
        hint = "keep open files, locks, lambdas and classes defined in functions out of it"
        yield f"{pickled} the modality, but it cannot be pickled: {describe_error(error)}; {hint}"
        return
    drawn, again = (one.sample_masks(2, seeded("pickled")) for one in (modality, copy))
    if not same([(masks.context, masks.target) for masks in drawn], [(masks.context, masks.target) for masks in again]):
        yield "a pickled copy of the modality draws other masks: they depend on something that is not an attribute"
    try:
        samples = pickle.loads(pickle.dumps(modality.dataset("train")))
    except Exception as error:
        hint = "open files when a sample is read, and define its class at the top of a module"
        yield f"{pickled} dataset('train'), but it cannot be pickled: {describe_error(error)}; {hint}"
        return
    if len(samples) != len(modality.dataset("train")):
        yield f"a pickled copy of dataset('train') has {len(samples)} samples, not {len(modality.dataset('train'))}"
