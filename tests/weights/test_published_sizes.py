"""The published sizes are found from files of their shapes: the config equals the recipe's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa.config.recipes import read_recipe
from jepa.model import JEPA
from jepa.ops.published_positions import published_sincos
from jepa.positions import Grid, grid_positions
from jepa.settings.resolve import resolve
from jepa.weights.formats import format_of, official
from jepa.weights.formats.stored import Stored

FORMATS = {"ijepa": "I-JEPA", "vjepa": "V-JEPA", "vjepa2": "V-JEPA 2"}


def file_of(recipe: str) -> tuple[dict[str, Any], Any]:
    """The content of a file with the networks of a recipe, all zeros that take no memory, and the recipe's config."""
    name = recipe.rpartition("_")[2]
    config, modality = resolve(recipe.partition("/")[0], read_recipe(recipe), ["run_dir=unused"])
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in JEPA(config.model, modality).state_dict().items()}
    content: dict[str, Any] = {"opt": {}, "scaler": None, "epoch": 1}
    tubelet = (config.data.tubelet,) if name != "ijepa" else ()
    patch = (3, *tubelet, config.data.patch_size, config.data.patch_size)
    for ours, theirs in official.NETWORKS.items():
        prefix = f"{ours}."
        own = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        zeros = {key: torch.zeros(1).expand(shape) for key, shape in own.items()}
        table = official.ENCODER
        if ours == "predictor":
            table = official.IMAGE_PREDICTOR if name == "ijepa" else official.VIDEO_PREDICTOR
        state = table.to_theirs(zeros, patch)
        if name != "vjepa2":
            width = config.model.predictor.width if ours == "predictor" else config.model.vit.width
            state["predictor_pos_embed" if ours == "predictor" else "pos_embed"] = table_of(modality.grid, width)
        content[theirs] = {f"module.{key}": value for key, value in state.items()}
    return content, config


def table_of(grid: Grid, width: int) -> Tensor:
    return published_sincos(grid_positions(grid), width).unsqueeze(0)


@pytest.mark.parametrize(
    ("recipe", "file"),
    [
        ("image/vith14_ijepa", "IN1K-vit.h.14-300e.pth.tar"),
        ("image/vith16_448_ijepa", "IN1K-vit.h.16-448px-300e.pth.tar"),
        ("image/vitg16_in22k_ijepa", "IN22K-vit.g.16-600e.pth.tar"),
        ("video/vith16_384_vjepa", "vith16-384.pth.tar"),
        ("video/vitg16_vjepa2", "vitg.pt"),
    ],
)
def test_a_file_of_a_published_size_gives_the_config_of_its_recipe(recipe: str, file: str) -> None:
    content, expected = file_of(recipe)
    stored = Stored(Path(file), content)
    found = format_of(stored)
    assert found is not None
    assert FORMATS[recipe.rpartition("_")[2]] == found.NAME
    config = found.read(stored).checkpoint.config
    size, vit = config["model"]["size"], expected.model.vit
    assert (size["width"], size["depth"], size["heads"]) == (vit.width, vit.depth, vit.heads)
    assert int(size["width"] * size["mlp_ratio"]) == int(vit.width * vit.mlp_ratio)
    for key in ("width", "depth", "heads", "blocks", "mask_tokens"):
        assert config["model"]["predictor"][key] == getattr(expected.model.predictor, key)
    assert config["loss"]["distance"] == expected.loss.distance
    sizes = [config["data"]["image_size"], config["data"]["patch_size"]]
    assert sizes == [expected.data.image_size, expected.data.patch_size]
