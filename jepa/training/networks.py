"""The networks of a run before its first step."""

import inspect
from functools import partial
from typing import Any

import torch
from torch import nn

from jepa.config import ConfigError
from jepa.distributed import World
from jepa.encoder import Encoder
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.training.config import Config


def initial_model(config: Config[Any, Any], modality: Modality[Any], world: World, is_replaced: bool = False) -> JEPA:
    """The networks drawn from the run's seed, on this process's device, sharded if the config says so.

    is_replaced: whether a checkpoint or `start_from` will replace the encoders. Raises ConfigError, and PeerError if
    another process raised one.
    """
    torch.manual_seed(config.seed)
    build = partial(build_model, config, modality, is_replaced)
    if world.size == 1 or config.compute.parallel == "ddp":
        with world.error_barrier():
            model = build()
        return model.to(world.device)
    from jepa.training.fsdp import sharded  # a slow import that few runs need

    return sharded(build, world, config.compute.uses_bf16(world.device.type))


def flaw_of_call(embedding: nn.Module) -> str:
    """Why an encoder cannot call its embedding with inputs and the tokens to keep; empty if it can."""
    try:
        inspect.signature(embedding.forward).bind(None, None)
    except TypeError as error:
        return f"embedding is called as embedding(inputs, keep), and {error}; `jepa.encoder.patch_embedding` makes one"
    return ""


def build_model(config: Config[Any, Any], modality: Modality[Any], is_replaced: bool) -> JEPA:
    """Networks with random weights, or with the pretrained encoder that the config names; raises ConfigError."""
    model = JEPA(config.model, modality, config.target_kinds)
    encoder = model.context_encoder
    if isinstance(encoder, Encoder) and (flaw := flaw_of_call(encoder.embedding)):
        raise ConfigError(f"modality {config.modality}: {flaw}")
    if model.context_encoder.device.type != "meta" and not is_replaced:
        try:
            model.context_encoder.load_pretrained(config.model)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error
        model.target_encoder.load_state_dict(model.context_encoder.state_dict())
    return model
