"""Precision, determinism and modes of torch during a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import deterministic as _deterministic

from jepa.config import ConfigError
from jepa.console import CONSOLE, warn_once
from jepa.distributed import World
from jepa.training.config import ComputeConfig, has_fast_bf16

deterministic: Any = _deterministic  # torch declares no types for it


@contextmanager
def numerics(compute: ComputeConfig, world: World) -> Iterator[None]:
    """Set torch's precision and determinism as the config says, and say in which precision; restores them on exit.

    Under bf16, products that stay in fp32 (signs of collapse, losses) use TF32 on GPUs; `precision=fp32` means fp32.
    """
    before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    filled = deterministic.fill_uninitialized_memory
    device = world.device.type
    if device == "cuda" and compute.uses_bf16("cuda"):
        torch.set_float32_matmul_precision("high")
    if world.is_main:
        CONSOLE.print(f"matrix products in {compute.precision_on(device)}", highlight=False)
        if compute.precision == "bf16" and not has_fast_bf16(device):
            warn_once(
                "compute.precision=bf16: products in bf16 are not known to be fast on this device, which may emulate "
                "them; compute.precision=auto would choose fp32"
            )
    if compute.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.use_deterministic_algorithms(before[1])
        deterministic.fill_uninitialized_memory = filled


def bf16_everywhere(compute: ComputeConfig, world: World) -> bool:
    """Whether all processes compute in bf16 and are fast at it; then Muon, whose updates all share, iterates in it.

    Raises ConfigError, in all processes, if `auto` means bf16 in some of them only.
    """
    fast = has_fast_bf16(world.device.type)
    some, all_of_them = world.any(fast), not world.any(not fast)
    if compute.precision == "auto" and some and not all_of_them:
        raise ConfigError(
            "compute.precision: auto would be bf16 in some processes and fp32 in others, as their processors differ; "
            "set compute.precision=fp32 or bf16"
        )
    return compute.precision != "fp32" and all_of_them


@contextmanager
def measuring(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients; modes and random state are afterwards as before."""
    modes = [(module, module.training) for module in network.modules()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        network.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
