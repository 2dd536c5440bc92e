"""The sizes that `benchmarks.step` measures, and our own training step at each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from jepa.data import Batch, seeded
from jepa.distributed import World
from jepa.launch import resolve
from jepa.modality import Modality
from jepa.optim import build_optimizer, clip_gradient
from jepa.train import backward
from jepa.training.config import Config, has_fast_bf16
from jepa.training.networks import initial_model

Precision = Literal["fp32", "bf16"]
LEARNING_RATE = 1e-4
MOMENTUM = 0.996


@dataclass(frozen=True)
class Case:
    """One size: settings over the defaults of a modality, and the samples of a step."""

    title: str
    modality: str
    batch_size: int
    settings: tuple[str, ...]
    loaded: tuple[str, ...] = ()  # further settings with which a run reads generated data

    def build(self, precision: Precision, extra: Sequence[str] = ()) -> tuple[Config[Any, Any], Modality[Any]]:
        """The config of the case and its modality; nothing is read from a disk."""
        fixed = (f"optim.batch_size={self.batch_size}", f"compute.precision={precision}", "run_dir=unused")
        return resolve(self.modality, {}, [*self.settings, *fixed, *extra])

    def batch(self, modality: Modality[Any]) -> Batch:
        """Normalised noise of the right shape, and one draw of masks; every method gets the same."""
        view = modality.example_view()
        shapes = partial(torch.randn, generator=seeded("inputs"))
        views = [tree_map(lambda leaf: shapes(self.batch_size, *leaf.shape), view) for _ in range(modality.views)]
        return Batch(views, modality.sample_masks(self.batch_size, seeded("masks")), [])


def _predictor(width: int, depth: int, heads: int, blocks: str, mask_tokens: int = 1) -> str:
    sizes = f"width: {width}, depth: {depth}, heads: {heads}, blocks: {blocks}, mask_tokens: {mask_tokens}"
    return f"model.predictor={{{sizes}}}"


_PUBLISHED = ("model.positions=sincos", "model.target_layers=1")
_IJEPA = (
    *("data.masking.kind=block", "data.masking.targets=4", "data.masking.target_scale=[0.15, 0.2]"),
    *("data.masking.target_aspect=[0.75, 1.5]", "data.masking.context_scale=[0.85, 1.0]", *_PUBLISHED),
)
_TUBES = ", ".join(
    f"{{kind: tube, blocks: {blocks}, scale: {scale}, aspect: [0.75, 1.5]}}" for blocks, scale in ((8, 0.15), (2, 0.7))
)
CASES = {
    "images": Case(
        "I-JEPA, ViT-S/16, 224 px, batch 8",
        "image",
        8,
        (
            "data.image_size=224",
            "data.patch_size=16",
            "model.size=vit_small",
            _predictor(384, 6, 6, "separate"),
            *_IJEPA,
        ),
    ),
    "small_images": Case(
        "I-JEPA, ViT-Ti/4, 32 px, batch 128",
        "image",
        128,
        ("data.image_size=32", "data.patch_size=4", "model.size=vit_tiny", _predictor(192, 6, 3, "separate"), *_IJEPA),
    ),
    "videos": Case(
        "V-JEPA, ViT-S/16, 16 frames of 224 px, tubelets of 2, batch 1",
        "video",
        1,
        (
            *("data.frames=16", "data.tubelet=2", "data.image_size=224", "data.patch_size=16", "model.size=vit_small"),
            *(f"data.masking=[{_TUBES}]", _predictor(384, 6, 6, "joint", 2), "loss.distance=l1", *_PUBLISHED),
        ),
    ),
}


def _ijepa(name: str, size: str, patch: int, depth: int, heads: int) -> Case:
    sizes = ("data.image_size=224", f"data.patch_size={patch}", f"model.size={size}")
    settings = (*sizes, _predictor(384, depth, heads, "separate"), *_IJEPA)
    return Case(f"I-JEPA, {name}/{patch}, 224 px, batch 128", "image", 128, settings, _PICTURES)


_PICTURES = ("data.source=scenes", "data.scenes.train=4096")
GPU_CASES = {
    "ijepa_base": _ijepa("ViT-B", "vit_base", 16, 6, 12),
    "ijepa_large": _ijepa("ViT-L", "vit_large", 16, 12, 16),
    "ijepa_huge": _ijepa("ViT-H", "vit_huge", 14, 12, 16),
    "vjepa_large": Case(
        "V-JEPA, ViT-L/16, 16 frames of 224 px, tubelets of 2, batch 24",
        "video",
        24,
        (
            *("data.frames=16", "data.tubelet=2", "data.image_size=224", "data.patch_size=16", "model.size=vit_large"),
            *(f"data.masking=[{_TUBES}]", _predictor(384, 12, 16, "joint", 2), "loss.distance=l1", *_PUBLISHED),
            "compute.activation_checkpointing=true",
        ),
        ("data.source=scenes", "data.scenes.train=256"),
    ),
    "toy": Case(
        "I-JEPA, toy size, batch 4",
        "image",
        4,
        (
            *("data.image_size=32", "data.patch_size=4", "model.size={width: 32, depth: 2, heads: 2}"),
            *(_predictor(16, 1, 2, "separate"), *_IJEPA),
        ),
        ("data.source=scenes", "data.scenes.train=16", "data.scenes.validation=4", "data.scenes.test=4"),
    ),
}


class Method(Protocol):
    """A training step or a forward pass that is measured."""

    def step(self) -> object:
        """Run it once."""

    def modules(self) -> Sequence[nn.Module]:
        """Everything whose parameters it holds."""


class Ours:
    """The training step of `jepa.train`, without reading data. number: of the step, which decides what it learns."""

    number = 0

    def __init__(
        self, config: Config[Any, Any], modality: Modality[Any], batch: Batch, world: World | None = None
    ) -> None:
        world = world or World(0, 1, torch.device("cpu"))
        self.config, self.batch = config, batch.to(world.device)
        self.model = initial_model(config, modality, world)
        self.model.set_activation_checkpointing(config.compute.activation_checkpointing)
        low = config.compute.uses_bf16(world.device.type) and has_fast_bf16(world.device.type)
        self.optimizer = build_optimizer(self.model, config.optim, low, world.size)
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        if config.compute.compile:
            self.model.compile()
        self.forward = world.data_parallel(self.model)

    def backward(self) -> Tensor:
        """Forward and backward pass -> loss."""
        return backward(self.config, self.number, self.forward, self.batch)[1]

    def step(self) -> object:
        """One training step."""
        total = self.backward()
        clip_gradient(self.optimizer, self.config.optim.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.clamp_contrast()
        self.model.update_target(MOMENTUM)
        return total

    def modules(self) -> Sequence[nn.Module]:
        """All three networks."""
        return [self.model]
