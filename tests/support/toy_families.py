"""Small architectures of other families under names of timm and open_clip, and files in their published layouts.

Importing this module registers the names.
"""

import json
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from timm.layers import LayerNorm
from timm.models import generate_default_cfgs, register_model
from timm.models.eva import Eva, _create_eva
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import Tensor, nn

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "num_classes": 0, "license": "mit"}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "num_classes": 0}
default_cfgs = generate_default_cfgs(
    {
        "toy_mae.mae": {"hf_hub_id": "timm/", "input_size": (3, 32, 32), **_IMAGENET},
        "toy_mae.augreg": {"hf_hub_id": "timm/", "input_size": (3, 32, 32), **_HALF},
        "toy_dinov2.lvd": {"hf_hub_id": "timm/", "input_size": (3, 42, 42), **_IMAGENET},
        "toy_dinov3.lvd": {"hf_hub_id": "timm/", "input_size": (3, 32, 32), **_IMAGENET},
        "toy_eva02.in22k": {"hf_hub_id": "timm/", "input_size": (3, 32, 32), **_HALF},
        "toy_siglip.webli": {"hf_hub_id": "timm/", "input_size": (3, 32, 32), **_HALF},
    }
)
_SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 3}


@register_model
def toy_mae(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    return _create_vision_transformer("toy_mae", patch_size=8, **_SMALL, **kwargs)


@register_model
def toy_dinov2(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    own = {"patch_size": 14, "init_values": 0.5, "reg_tokens": 4, "no_embed_class": True}
    return _create_vision_transformer("toy_dinov2", **_SMALL, **own, **kwargs)


@register_model
def toy_dinov3(pretrained: bool = False, **kwargs: Any) -> Eva:
    rope = {"rope_type": "dinov3", "rope_temperature": 100, "rope_rotate_half": True, "use_rot_pos_emb": True}
    own = {"patch_size": 8, "qkv_bias": False, "init_values": 0.5, "use_abs_pos_emb": False, "num_reg_tokens": 4}
    norm = {"use_fc_norm": False, "norm_layer": partial(LayerNorm, eps=1e-5)}
    return _create_eva("toy_dinov3", dynamic_img_size=True, **_SMALL, **rope, **own, **norm, **kwargs)


@register_model
def toy_eva02(pretrained: bool = False, **kwargs: Any) -> Eva:
    return _create_eva("toy_eva02", **{**_SMALL, "img_size": 32, "patch_size": 8, **kwargs})


@register_model
def toy_siglip(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    own = {"img_size": 32, "patch_size": 8, "class_token": False, "global_pool": "map"}
    return _create_vision_transformer("toy_siglip", **{**_SMALL, **own, **kwargs})


def random_network(name: str, image_size: int) -> nn.Module:
    """A model of timm whose every weight is random, also those that start as zeros or ones."""
    torch.manual_seed(1)
    network = timm.create_model(name, num_classes=0, img_size=image_size).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def published(name: str, weights: dict[str, Tensor]) -> Any:
    """The weights as the project of this name publishes them, with what else its files hold."""
    match name:
        case "toy_mae":  # a whole MAE
            decoder = {"decoder_embed.weight": torch.zeros(3), "decoder_blocks.0.norm1.weight": torch.zeros(3)}
            return {"model": weights | decoder | {"mask_token": torch.zeros(1, 1, 3)}}
        case "toy_dino":  # a checkpoint of its training
            teacher = {f"module.backbone.{key}": value for key, value in weights.items()}
            student = {key: torch.zeros_like(value) for key, value in teacher.items()}
            head = {"module.head.mlp.0.weight": torch.zeros(3)}
            return {"student": student, "teacher": teacher | head, "args": Namespace(arch="vit_tiny")}
        case "toy_dinov2":  # registers have no positions, but the class token has one
            positions = torch.randn(1, 1, 48)
            found = {key: value for key, value in weights.items() if key not in ("reg_token", "cls_token", "pos_embed")}
            found |= {"register_tokens": weights["reg_token"], "cls_token": weights["cls_token"] - positions}
            return found | {
                "pos_embed": torch.cat([positions, weights["pos_embed"]], 1),
                "mask_token": torch.zeros(1, 48),
            }
        case _:
            return weights


def open_clip_model(folder: Path, name: str, vision: dict[str, Any]) -> nn.Module:
    """A small CLIP, registered under a name."""
    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 20, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(2)
    return open_clip.create_model(name, load_weights=False).eval()
