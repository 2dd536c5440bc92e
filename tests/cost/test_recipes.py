"""The published recipes: batch, tokens and parameters as published, and memory that a GPU has."""

import re
from typing import Any

import pytest

from jepa.config.recipes import read_recipe, recipes
from jepa.cost.gpus import GPUS
from jepa.cost.process_memory import Allocation, count, networks, process_memory
from jepa.launch import resolve

L, H, G = 303_885_312, 631_648_000, 1_012_173_952  # weights of the encoders of videos
RECIPES = {  # GPUs, samples of each, tokens, weights of the encoder
    "image/vith14_ijepa": (16, 128, 256, 630_434_560),
    "video/vitl16_vjepa": (128, 24, 1568, L),
    "video/vith16_vjepa": (128, 24, 1568, H),
    "video/vith16_384_vjepa": (240, 10, 4608, H),
    "video/vitl16_vjepa2": (128, 24, 2048, L),
    "video/vitl16_vjepa2_cooldown": (256, 12, 8192, L),
    "video/vith16_vjepa2": (128, 24, 2048, H),
    "video/vith16_vjepa2_cooldown": (256, 12, 8192, H),
    "video/vitg16_vjepa2": (128, 24, 2048, G),
    "video/vitg16_vjepa2_cooldown": (512, 6, 8192, G),
    "video/vitg16_vjepa2_384_cooldown": (512, 6, 18432, G),
}


def resolved(name: str) -> Any:
    return resolve(name.partition("/")[0], read_recipe(name), [])


@pytest.mark.parametrize("name", RECIPES)
def test_a_published_recipe_has_the_published_batch_tokens_and_parameters(name: str) -> None:
    gpus, samples, tokens, weights = RECIPES[name]
    config, modality = resolved(name)
    assert config.optim.batch_size == gpus * samples
    assert len(modality.positions) == tokens
    model = networks(config, modality)
    assert count(model.context_encoder.parameters()) == weights
    assert f"on the published {gpus} GPUs: " in recipes()[name].read_text()
    groups = modality.mask_groups
    assert groups is not None
    assert groups.equal or groups.size == samples


@pytest.mark.soak
@pytest.mark.parametrize("name", RECIPES)
def test_a_published_recipe_fits_a_gpu_of_80_gb_and_its_header_says_the_memory(name: str) -> None:
    gpus = RECIPES[name][0]
    config, modality = resolved(name)
    memory = process_memory(config, modality, Allocation(gpus, gpus))
    said = re.search(r"([\d.]+) GiB a GPU with DDP, ([\d.]+) with FSDP", recipes()[name].read_text())
    assert said is not None
    for way, figure in zip(("ddp", "fsdp"), said.groups(), strict=True):
        assert memory[way].total / 2**30 == pytest.approx(float(figure), rel=0.1)
        assert GPUS[1].holds(memory[way].total)
