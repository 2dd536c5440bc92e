"""The published recipes: what their papers and the files of their authors' code say, and memory that a GPU has."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import pytest
import torch

from jepa.config.recipes import read_recipe, recipes
from jepa.cost.gpus import GPUS
from jepa.cost.process_memory import Allocation, count, networks, process_memory
from jepa.data import seeded
from jepa.launch import resolve
from jepa.masking import BlockMaskConfig
from jepa.optim import set_schedule


@dataclass(frozen=True, kw_only=True)
class Published:
    """Numbers of a paper, and of the file in its code where there is one.

    samples: of each GPU. frames: of a clip, in tubelets of 2; None for images. width, depth, hidden: of the encoder.
    millions: weights of the encoder as published. narrow: depth and heads of the predictor, which is 384 wide. warmup:
    in epochs. rates: before the first step, at the end of the warm-up, at the end. decay, momentum: at the first and at
    the last step. sets: for each set of masks, the number of blocks and the shares of the picture that one may cover.
    levels: joined, each with a norm. dense: visible tokens have a projection of their own.
    """

    gpus: int
    samples: int
    side: int
    patch: int
    frames: int | None = None
    width: int
    depth: int
    hidden: int
    millions: float
    narrow: tuple[int, int] = (12, 12)
    epochs: int
    iterations: int
    warmup: int
    rates: tuple[float, float, float]
    decay: tuple[float, float]
    momentum: tuple[float, float]
    sets: tuple[tuple[int, tuple[float, float]], ...]
    mask_tokens: int = 1
    clip: float | None = None
    levels: int = 1
    dense: str = "none"

    @property
    def tokens(self) -> int:
        return (self.side // self.patch) ** 2 * (self.frames or 2) // 2

    @property
    def encoder(self) -> int:
        """Weights of the encoder: patches, blocks, norms of the levels."""
        values = 3 * self.patch**2 * (2 if self.frames else 1)
        return (values + 1) * self.width + self.depth * block(self.width, self.hidden) + self.levels * 2 * self.width

    @property
    def predictor(self) -> int:
        """Weights of the predictor; an MLP reads several levels."""
        joined = (self.levels * self.width + 1) * self.width if self.levels > 1 else 0
        projections = (2 if self.dense != "none" else 1) * 385 * self.levels * self.width
        tokens = 384 * self.mask_tokens
        return joined + (self.width + 1) * 384 + self.narrow[0] * block(384, 1536) + 2 * 384 + projections + tokens


def block(width: int, hidden: int) -> int:
    """Weights of a block: queries, keys, values and projection; two layers; two norms."""
    return 4 * (width + 1) * width + (width + 1) * hidden + (hidden + 1) * width + 4 * width


I_JEPA = Published(  # ViT-H/14: in1k_vith14_ep300.yaml
    gpus=16,
    samples=128,
    side=224,
    patch=14,
    width=1280,
    depth=32,
    hidden=5120,
    millions=632,
    narrow=(12, 16),
    epochs=300,
    iterations=1_281_167 // 2048,
    warmup=40,
    rates=(2e-4, 1e-3, 1e-6),
    decay=(0.04, 0.4),
    momentum=(0.996, 1.0),
    sets=((4, (0.15, 0.2)),),
)
ON_22K = {"iterations": 14_197_122 // 2048, "warmup": 3}
OF_BASE = {"width": 768, "depth": 12, "hidden": 3072, "millions": 86}
OF_LARGE = {"width": 1024, "depth": 24, "hidden": 4096, "millions": 304}
OF_GIANT = {"width": 1408, "depth": 40, "hidden": 6144, "millions": 1011}
OF_GIGANTIC = {"width": 1664, "depth": 48, "hidden": 8192, "millions": 1840}
PAPER = replace(I_JEPA, patch=16, epochs=600, warmup=15, rates=(1e-4, 1e-3, 1e-6))  # Assran et al. 2023, appendix A

TUBES = {"sets": ((8, (0.15, 0.15)), (2, (0.7, 0.7)))}
V_JEPA = replace(  # ViT-L/16: vitl16.yaml; its schedules are a quarter longer than the run
    replace(I_JEPA, **OF_LARGE, **TUBES, gpus=128, samples=24, patch=16, frames=16, iterations=300, mask_tokens=2),
    rates=(2e-4, 6.25e-4, 7.504e-5),
    decay=(0.04, 0.3656),
    momentum=(0.998, 0.9996),
    clip=10,
)
V_JEPA_2 = replace(  # ViT-L/16: pretrain-256px-16f.yaml, with the length of ViT-g's; one mask token is ever used
    replace(V_JEPA, side=256, narrow=(12, 12), epochs=800, mask_tokens=1, clip=None),
    rates=(1e-4, 5.25e-4, 5.25e-4),
    decay=(0.04, 0.04),
    momentum=(0.99925, 0.99925),
)
COOLDOWN = {"gpus": 256, "samples": 12, "frames": 64, "epochs": 40, "warmup": 0}
COOLDOWN_2 = {**COOLDOWN, "rates": (5.25e-4, 5.25e-4, 1e-6)}
V_JEPA_2_1 = replace(  # ViT-L/16: train_2_1/vitl16/pretrain-256px-16f.yaml, with the length of the paper
    replace(V_JEPA_2, narrow=(24, 12), epochs=450, rates=(1e-4, 6e-4, 6e-4)), levels=4, dense="distance"
)
COOLDOWN_2_1 = {**COOLDOWN, "rates": (6e-4, 6e-4, 1e-6), "dense": "uniform"}
MANY: dict[str, Any] = {"gpus": 512, "samples": 6}
GIGANTIC, BASE = {**OF_GIGANTIC, "gpus": 256, "samples": 12}, {**OF_BASE, "narrow": (12, 12), "gpus": 64, "samples": 48}

RECIPES: dict[str, Published] = {
    "image/vitb16_ijepa": replace(PAPER, **OF_BASE, narrow=(6, 12)),
    "image/vitl16_ijepa": replace(PAPER, **OF_LARGE),
    "image/vith14_ijepa": I_JEPA,
    "image/vith16_448_ijepa": replace(I_JEPA, side=448, patch=16, gpus=128, samples=16),
    "image/vith14_in22k_ijepa": replace(I_JEPA, **ON_22K, epochs=66, gpus=64, samples=32),
    "image/vitg16_in22k_ijepa": replace(
        I_JEPA, **ON_22K, **OF_GIANT, epochs=44, gpus=128, samples=16, patch=16, narrow=(16, 16)
    ),
    "video/vitl16_vjepa": V_JEPA,
    "video/vith16_vjepa": replace(V_JEPA, width=1280, depth=32, hidden=5120, millions=632),
    "video/vith16_384_vjepa": replace(
        V_JEPA, width=1280, depth=32, hidden=5120, millions=632, side=384, gpus=240, samples=10
    ),
    "video/vitl16_vjepa2": V_JEPA_2,
    "video/vitl16_vjepa2_cooldown": replace(V_JEPA_2, **COOLDOWN_2),
    "video/vith16_vjepa2": replace(V_JEPA_2, width=1280, depth=32, hidden=5120, millions=632),
    "video/vith16_vjepa2_cooldown": replace(V_JEPA_2, **COOLDOWN_2, width=1280, depth=32, hidden=5120, millions=632),
    "video/vitg16_vjepa2": replace(V_JEPA_2, **OF_GIANT),
    "video/vitg16_vjepa2_cooldown": replace(V_JEPA_2, **{**COOLDOWN_2, **OF_GIANT, **MANY}),
    "video/vitg16_vjepa2_384_cooldown": replace(V_JEPA_2, **{**COOLDOWN_2, **OF_GIANT, **MANY}, side=384),
    "video/vitb16_vjepa2_1": replace(V_JEPA_2_1, **BASE),
    "video/vitb16_vjepa2_1_cooldown": replace(V_JEPA_2_1, **{**COOLDOWN_2_1, **BASE, "gpus": 128, "samples": 24}),
    "video/vitl16_vjepa2_1": V_JEPA_2_1,
    "video/vitl16_vjepa2_1_cooldown": replace(V_JEPA_2_1, **COOLDOWN_2_1),
    "video/vitg16_vjepa2_1": replace(V_JEPA_2_1, **OF_GIANT),
    "video/vitg16_vjepa2_1_cooldown": replace(V_JEPA_2_1, **COOLDOWN_2_1, **OF_GIANT),
    "video/vitgigantic16_vjepa2_1": replace(V_JEPA_2_1, **GIGANTIC),
    "video/vitgigantic16_vjepa2_1_cooldown": replace(V_JEPA_2_1, **{**COOLDOWN_2_1, **GIGANTIC, **MANY}),
}


@lru_cache
def resolved(name: str) -> Any:
    return resolve(name.partition("/")[0], read_recipe(name), [])


@lru_cache
def weights(modality: str, model: Any, patch: int, visible: str) -> tuple[int, int]:
    """Weights of encoder and predictor, which do not depend on the resolution."""
    data = [f"data.patch_size={patch}", f"data.image_size={8 * patch}", f"loss.visible={visible}"]
    config, small = resolve(modality, {}, data)
    built = networks(replace(config, model=model), small)
    return count(built.context_encoder.parameters()), count(built.predictor.parameters())


def test_every_recipe_of_a_paper_is_in_the_table() -> None:
    assert {name for name in recipes() if "jepa" in name} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_published_recipe_has_the_published_batch_tokens_and_parameters(name: str) -> None:
    published = RECIPES[name]
    config, modality = resolved(name)
    assert config.optim.batch_size == published.gpus * published.samples
    assert len(modality.positions) == prod(modality.grid) == published.tokens
    encoder, predictor = weights(name.partition("/")[0], config.model, config.data.patch_size, config.loss.visible)
    assert encoder == published.encoder
    assert published.encoder / 1e6 == pytest.approx(published.millions, rel=0.01)
    assert predictor == published.predictor
    assert config.model.predictor.heads == published.narrow[1]
    assert config.model.target_outputs[-1] == published.depth
    assert len(config.model.target_outputs) == max(1, len(config.model.levels)) == published.levels
    assert config.loss.visible == published.dense
    text = recipes()[name].read_text()
    assert re.search(rf"on (the published )?{published.gpus} GPUs: ", text)
    assert re.search(r"Run here:\s(#\s)?the\s(#\s)?dry\s(#\s)?run", text)
    groups = modality.mask_groups
    assert groups is not None
    assert groups.equal or groups.size == published.samples


@pytest.mark.parametrize("name", RECIPES)
def test_a_published_recipe_has_the_published_length_and_ends_of_its_schedules(name: str) -> None:
    published, (config, _) = RECIPES[name], resolved(name)
    steps, warmup = published.epochs * published.iterations, published.warmup * published.iterations
    assert config.steps == steps
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "factor": 1.0, "decayed": True}])
    start, peak, last = published.rates

    def values(step: int) -> tuple[float, float, float]:
        rate = set_schedule(optimizer, step, config.steps, config.optim)
        return rate, optimizer.param_groups[0]["weight_decay"], config.target_update(step).after

    first, warm, end = values(0), values(max(0, warmup - 1)), values(steps - 1)
    assert first[0] == pytest.approx(start + (peak - start) / warmup if warmup else peak, rel=1e-3)
    assert warm[0] == pytest.approx(peak, rel=1e-4)
    assert values(max(0, warmup - 2))[0] < peak or not warmup
    assert end[0] == pytest.approx(last, rel=1e-3, abs=1e-7)
    assert [first[1], end[1]] == pytest.approx(published.decay, rel=1e-3)
    assert [first[2], end[2]] == pytest.approx(published.momentum, abs=1e-5)
    assert config.optim.betas == (0.9, 0.999)
    assert config.optim.max_gradient_norm == published.clip


@pytest.mark.parametrize("name", RECIPES)
def test_a_published_recipe_has_the_published_masks(name: str) -> None:
    published, (config, modality) = RECIPES[name], resolved(name)
    masking = config.data.masking
    strategies = [masking] * config.data.mask_sets if isinstance(masking, BlockMaskConfig) else masking
    assert config.model.predictor.mask_tokens == published.mask_tokens
    drawn = modality.sample_masks(2, seeded("masks"))
    for strategy, masks, (blocks, shares) in zip(strategies, drawn, published.sets, strict=True):
        is_image = isinstance(strategy, BlockMaskConfig)
        assert (strategy.target_aspect if is_image else strategy.aspect) == (0.75, 1.5)
        assert (strategy.targets if is_image else strategy.blocks) == blocks
        assert (strategy.target_scale if is_image else (strategy.scale, strategy.scale)) == shares
        hidden = masks.target.shape[2] / published.tokens
        assert masks.target.shape[1] == (blocks if is_image else 1)
        assert 0.8 * shares[0] < hidden < (1.2 * shares[1] if is_image else 1)
        if is_image:
            assert strategy.context_scale == (0.85, 1.0)
        else:
            assert strategy.time_scale == 1


@pytest.mark.soak
@pytest.mark.parametrize("name", RECIPES)
def test_a_published_recipe_fits_a_gpu_of_80_gb_and_its_header_says_the_memory(name: str) -> None:
    gpus = RECIPES[name].gpus
    config, modality = resolved(name)
    memory = process_memory(config, modality, Allocation(gpus, gpus))
    said = re.search(r"([\d.]+) GiB a GPU with DDP, ([\d.]+) with FSDP", recipes()[name].read_text())
    assert said is not None
    for way, figure in zip(("ddp", "fsdp"), said.groups(), strict=True):
        assert memory[way].total / 2**30 == pytest.approx(float(figure), rel=0.1)
        assert GPUS[1].holds(memory[way].total)
