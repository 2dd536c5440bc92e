"""Architectures and weights of open_clip by name, and the pixel statistics that they expect."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from open_clip import factory
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.factory import get_model_config, list_models
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from timm.models import is_model_in_modules

PixelStatistics = tuple[float, float, float]  # of red, green and blue, white being 1
LOCAL = "local-dir:"
CONFIG_FILE = "open_clip_config.json"
_CLIP_IDS, CLIP_END = 49408, 49407  # vocabulary size and end token of CLIP's own tokenizer
# Only masks drop patches. Dropout would use a hidden random state and add noise to targets.
_NO_DROPOUT = {"patch_dropout": 0.0, "timm_drop": 0.0, "timm_drop_path": None}
_ADVICE = "use a vision transformer such as ViT-B-32, ViT-B-16-SigLIP2 or EVA02-B-16"


@dataclass(frozen=True, kw_only=True)
class TowerSizes:
    """Custom towers, with the keys of open_clip's JSON files.

    mask_padding: a text tower that is not causal (`no_causal_mask: true`) does not attend to padding.
    """

    embed_dim: int
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]
    quick_gelu: bool = False
    mask_padding: bool = True

    def __str__(self) -> str:
        return f"towers of {self.vision_cfg} and {self.text_cfg}"


def tower_config(architecture: str | TowerSizes, image_size: tuple[int, int] | None) -> dict[str, Any]:
    """Arguments of open_clip's model; raises ValueError for an unknown architecture or one without patch tokens."""
    if isinstance(architecture, TowerSizes):
        config = _custom_config(architecture)
    else:
        config = _named_config(architecture)
        config.pop("custom_text", None)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if image_size is not None:
        vision["image_size"] = image_size
    _check_vision(str(architecture), vision, image_size)
    _check_text(str(architecture), text)
    return config | {"vision_cfg": vision | _NO_DROPOUT | {"timm_model_pretrained": False}}


def _custom_config(sizes: TowerSizes) -> dict[str, Any]:
    for section, keys, known in (
        ("vision_cfg", sizes.vision_cfg, CLIPVisionCfg),
        ("text_cfg", sizes.text_cfg, CLIPTextCfg),
    ):
        names = [entry.name for entry in fields(known)]
        if unknown := [key for key in keys if key not in names]:
            raise ValueError(f"{section}: unknown key '{unknown[0]}'{_nearest(unknown[0], names)}")
        if keys.get("scaled_cosine_attn"):
            raise ValueError(f"{section}: scaled_cosine_attn must be false: it does not work in open_clip")
    if dropped := [key for key in _NO_DROPOUT if sizes.vision_cfg.get(key)]:
        raise ValueError(f"vision_cfg: {dropped[0]} must be 0: only masks drop patches")
    return {
        "embed_dim": sizes.embed_dim,
        "vision_cfg": dict(sizes.vision_cfg),
        "text_cfg": dict(sizes.text_cfg),
        "quick_gelu": sizes.quick_gelu,
    }


def _named_config(architecture: str) -> dict[str, Any]:
    if architecture.startswith(LOCAL):
        return _folder_config(architecture.removeprefix(LOCAL))["model_cfg"]  # type: ignore[no-any-return]
    if architecture not in (known := list_models()):
        raise ValueError(
            f"open_clip has no architecture '{architecture}'{_nearest(architecture, known)}; `open_clip.list_models()` "
            f"lists all, and '{LOCAL}PATH' is a folder with {CONFIG_FILE}"
        )
    return get_model_config(architecture)  # type: ignore[no-any-return]


def _folder_config(folder: str) -> dict[str, Any]:
    path = Path(folder) / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if {"embed_dim", "vision_cfg", "text_cfg"} <= set(config["model_cfg"]):
            return config  # type: ignore[no-any-return]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder} needs a valid {CONFIG_FILE}, as written by open_clip: {error!r}") from error
    raise ValueError(f"{path}: its model_cfg needs embed_dim, vision_cfg and text_cfg")


def _check_vision(architecture: str, vision: dict[str, Any], image_size: tuple[int, int] | None) -> None:
    trunk = vision.get("timm_model_name")
    if trunk is not None and not is_model_in_modules(trunk, ("vision_transformer", "eva")):
        raise ValueError(f"{architecture} has no plain patch tokens (its image tower is {trunk}); {_ADVICE}")
    if trunk is None and isinstance(vision.get("layers"), Sequence):
        raise ValueError(f"{architecture} has no patch tokens (its image tower is a ResNet); {_ADVICE}")
    if isinstance(vision.get("attentional_pool"), str) or vision.get("pool_type") == "none":
        raise ValueError(f"{architecture} does not pool images into one vector; pool_type must be 'tok' or 'avg'")
    if trunk is None and image_size is not None:
        check_divides(image_size, vision.get("patch_size", 16))


def check_divides(image_size: tuple[int, int], patch: int) -> None:
    """Raise ValueError unless square patches divide images of this size (height, width in pixels)."""
    if any(side < patch or side % patch for side in image_size):
        raise ValueError(f"images of {image_size[0]} x {image_size[1]} do not divide into patches of {patch} x {patch}")


def _check_text(architecture: str, text: dict[str, Any]) -> None:
    if text.get("hf_model_name"):
        raise ValueError(
            f"{architecture} has a text tower of Hugging Face ({text['hf_model_name']}), which cannot drop tokens; "
            "use an architecture with open_clip's own text tower, such as ViT-B-32"
        )
    if text.get("pool_type") == "none":
        raise ValueError(f"{architecture} does not pool captions; pool_type must be 'argmax', 'first', 'last' or 'eos'")
    if text.get("hf_tokenizer_name"):
        return
    if text.get("pool_type") == "eos" and text.get("eos_id") != CLIP_END:
        raise ValueError(f"text_cfg: pool_type 'eos' needs eos_id {CLIP_END}, the end token of CLIP's tokenizer")
    if text.get("vocab_size", _CLIP_IDS) < _CLIP_IDS:
        raise ValueError(f"text_cfg: a vocab_size of {text['vocab_size']} is too small for CLIP's {_CLIP_IDS} ids")


def weights_file(architecture: str | TowerSizes, pretrained: str | None) -> str | None:
    """Path of the weights, downloaded if necessary, or None; raises ValueError if there are no such weights."""
    if pretrained is None:
        return None
    if pretrained in _tags(architecture):
        return _downloaded(str(architecture), pretrained)
    path = _stored_weights(architecture, pretrained)
    if path.is_dir():
        found = factory._find_checkpoint_in_dir(path)
        if found is None:
            raise ValueError(f"{path} holds no weights: no .safetensors, .bin or .pth file")
        return str(found)
    return str(path)


def _stored_weights(architecture: str | TowerSizes, pretrained: str) -> Path:
    """The file or folder of weights; raises ValueError if it does not exist."""
    path = Path(pretrained.removeprefix(LOCAL))
    if not path.is_file() and not path.is_dir():
        tags = _tags(architecture)
        known = f"a tag of open_clip ({', '.join(tags)}), " if tags else ""
        raise ValueError(f"no weights '{pretrained}' for {architecture}; give {known}a file, or a folder with one")
    return path


def _downloaded(name: str, tag: str) -> str:
    entry = get_pretrained_cfg(name, tag)
    quick = bool(get_model_config(name).get("quick_gelu", False))
    if bool(entry.get("quick_gelu", False)) != quick:
        other = name.removesuffix("-quickgelu") if quick else f"{name}-quickgelu"
        raise ValueError(f"the weights '{tag}' were trained with another activation than that of {name}; use {other}")
    try:
        return download_pretrained(entry)  # type: ignore[no-any-return]
    except Exception as error:  # the libraries raise no common type for a failed download
        where = entry.get("hf_hub") or entry.get("url")
        raise ValueError(
            f"the weights '{tag}' of {name} could not be downloaded from {where}; download the file on a machine with "
            f"network access and give its path instead: {type(error).__name__}"
        ) from error


def pixel_statistics(architecture: str | TowerSizes, pretrained: str | None) -> tuple[PixelStatistics, PixelStatistics]:
    """Mean and standard deviation of pixels that the weights expect; downloads nothing.

    For a tag they are the tag's; for a folder or a file in it, those in its open_clip_config.json. Otherwise, and for
    random weights, they are those shared by all published weights of the architecture (such as SigLIP's), or CLIP's if
    there are none or they differ. Raises ValueError if the weights do not exist.
    """
    tags = _tags(architecture)
    if pretrained in tags:
        entries = [get_pretrained_cfg(architecture, pretrained)]
    elif stated := _stated_pixels(architecture, pretrained):
        return stated
    else:
        entries = [get_pretrained_cfg(architecture, tag) for tag in tags]
    found = {_of_channels(entry) for entry in entries}
    return found.pop() if len(found) == 1 else _of_channels({})


def _stated_pixels(
    architecture: str | TowerSizes, pretrained: str | None
) -> tuple[PixelStatistics, PixelStatistics] | None:
    """Pixel statistics in the folder of the weights, or else in that of the architecture."""
    folders = []
    if pretrained is not None:
        path = _stored_weights(architecture, pretrained)
        folders.append(path if path.is_dir() else path.parent)
    if isinstance(architecture, str) and architecture.startswith(LOCAL):
        folders.append(Path(architecture.removeprefix(LOCAL)))
    for folder in folders:
        if (folder / CONFIG_FILE).is_file() and (stated := _folder_config(str(folder)).get("preprocess_cfg")):
            try:
                return _of_channels(stated)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{folder / CONFIG_FILE}: preprocess_cfg: {error}") from error
    return None


def _of_channels(entry: dict[str, Any]) -> tuple[PixelStatistics, PixelStatistics]:
    """Mean and standard deviation as written by open_clip, one number or three; CLIP's if missing.

    Raises TypeError or ValueError for anything else, or values out of range.
    """
    mean = _three(OPENAI_DATASET_MEAN if entry.get("mean") is None else entry["mean"])
    std = _three(OPENAI_DATASET_STD if entry.get("std") is None else entry["std"])
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise ValueError(f"mean {mean} must lie in [0, 1] and std {std} in (0, 1], white being 1")
    return mean, std


def _three(values: float | Sequence[float]) -> PixelStatistics:
    red, green, blue = (values,) * 3 if isinstance(values, int | float) else values
    return float(red), float(green), float(blue)


def _tags(architecture: str | TowerSizes) -> list[str]:
    if isinstance(architecture, TowerSizes) or architecture.startswith(LOCAL):
        return []
    return list_pretrained_tags_by_model(architecture)  # type: ignore[no-any-return]


def _nearest(name: str, known: Sequence[str]) -> str:
    """The end of an error about an unknown name: the nearest names, or all names if there are few."""
    lowered = {entry.lower(): entry for entry in known}
    if close := difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5):
        return f"; nearest: {', '.join(lowered[match] for match in close)}"
    return f"; known: {', '.join(sorted(known))}" if len(known) < 40 else ""
