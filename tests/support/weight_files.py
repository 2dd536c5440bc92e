"""Weight files in the layouts of other projects, with random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import randomise
from torch import Tensor, nn

from jepa.encoder import VitSize
from jepa.model import JEPA
from jepa.model_config import ModelConfig
from jepa.predictor import PredictorConfig
from jepa.weights.formats import official
from modalities.image import Image, ImageConfig


def random_weights(network: nn.Module) -> nn.Module:
    """Random weights, and the fixed table of positions of I-JEPA, columns before rows."""
    randomise(network)
    for name, parameter in network.named_parameters():
        if "pos_embed" in name or "position_embeddings" in name:
            parameter.data.copy_(ijepa_table(parameter.shape[1], parameter.shape[2]))
    return network.eval()


def ijepa_table(tokens: int, width: int) -> Tensor:
    side = round(tokens**0.5)
    rates = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    column, row = (axis.flatten() for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"))
    parts = [wave(axis[:, None] * rates) for axis in (column, row) for wave in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).float().unsqueeze(0)


def ijepa_file(path: Path) -> Path:
    """A file in the layout of I-JEPA's authors, written from random networks of ours."""
    config = ModelConfig(
        size=VitSize(width=192, depth=1, heads=3), predictor=PredictorConfig(width=48, depth=1, heads=3)
    )
    model = JEPA(config, Image(ImageConfig(image_size=64)))
    networks: dict[str, dict[str, Tensor]] = {"context_encoder": {}, "predictor": {}, "target_encoder": {}}
    for name, value in model.state_dict().items():
        network, _, rest = name.partition(".")
        networks[network][rest] = value
    states = {
        "encoder": official.ENCODER.to_theirs(networks["context_encoder"], (3, 16, 16)),
        "predictor": official.IMAGE_PREDICTOR.to_theirs(networks["predictor"], ()),
        "target_encoder": official.ENCODER.to_theirs(networks["target_encoder"], (3, 16, 16)),
    }
    for name, state in states.items():
        table, width = ("predictor_pos_embed", 48) if name == "predictor" else ("pos_embed", 192)
        state[table] = ijepa_table(16, width)
    marked = {name: {f"module.{key}": one for key, one in state.items()} for name, state in states.items()}
    torch.save({**marked, "opt": {"state": {}}, "scaler": None, "epoch": 3, "lr": 1e-3}, path)
    return path


def vjepa2_1_file(path: Path, *, distilled: bool) -> dict[str, dict[str, Tensor]]:
    """A file in the layout of V-JEPA 2.1, ViT-tiny; distilled ones have `ema_encoder` and a predictor of a teacher."""
    draw = torch.Generator().manual_seed(0)

    def linear(name: str, *shape: int) -> dict[str, Tensor]:
        return {
            f"{name}.{kind}": torch.randn(size, generator=draw) * 0.1
            for kind, size in (("weight", shape), ("bias", shape[:1]))
        }

    def transformer(blocks: str, depth: int, width: int) -> dict[str, Tensor]:
        parts = {"norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        parts |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        layers = [
            linear(f"{blocks}.{number}.{name}", *shape) for number in range(depth) for name, shape in parts.items()
        ]
        marks = {f"{kind}_mod_embed": torch.randn(1, 1, width, generator=draw) for kind in ("img", "video")}
        return {name: value for one in layers for name, value in one.items()} | marks

    encoder = transformer("blocks", 12, 192) | linear("patch_embed.proj", 192, 3, 2, 16, 16)
    encoder |= linear("patch_embed_img.proj", 192, 3, 1, 16, 16)
    for number in range(4):
        encoder |= linear(f"norms_block.{number}", 192)
    outputs = 1664 if distilled else 4 * 192
    predictor = transformer("predictor_blocks", 2, 48) | linear("predictor_norm", 48)
    predictor |= linear("predictor_proj", outputs, 48) | linear("predictor_proj_context", outputs, 48)
    predictor |= {f"mask_tokens.{number}": torch.randn(1, 1, 48, generator=draw) for number in range(8)}
    if distilled:
        predictor |= linear("predictor_embed", 48, 192)
    else:
        predictor |= linear("predictor_embed.0", 192, 4 * 192) | linear("predictor_embed.2", 48, 192)
    networks = {"ema_encoder" if distilled else "target_encoder": encoder, "predictor": predictor}
    networks = {name: {f"module.backbone.{key}": one for key, one in state.items()} for name, state in networks.items()}
    torch.save({**networks, "epoch": 3, "opt": {}}, path)
    return networks


def hf_ijepa() -> Any:
    """A classifier of transformers on I-JEPA; `hf_ijepa().ijepa` is its encoder."""
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.IJepaConfig(**sizes, intermediate_size=768, image_size=64, patch_size=16, layer_norm_eps=1e-6)
    return random_weights(transformers.IJepaForImageClassification(config))
