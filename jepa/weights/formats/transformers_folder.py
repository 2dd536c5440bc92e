"""What folders of transformers share: config, safetensors, and how pixels become inputs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from jepa.disk.tensors import save_tensors
from jepa.weights.formats.export import Export
from jepa.weights.formats.stored import CONFIG, WEIGHTS

_BILINEAR = 2  # in Pillow


def write_folder(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write weights and config.json to a new folder."""
    path.mkdir()
    save_tensors({name: value.contiguous().clone() for name, value in state.items()}, path / WEIGHTS, {"format": "pt"})
    write_json(path / CONFIG, config)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write settings as JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def loaded(kind: str, path: Path) -> Any:
    """The model of a folder by a class of transformers, without its bar of progress; raises ImportError."""
    import transformers

    bars: Any = transformers.utils.logging
    shows_bars = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        return getattr(transformers, kind).from_pretrained(path).eval()
    finally:
        if shows_bars:
            bars.enable_progress_bar()


def processor(export: Export) -> dict[str, Any]:
    """Settings of an image or video processor: as our evaluation view, the largest central crop, resized."""
    mean, std = export.pixels or ([], [])
    height, width = export.modality.config.size
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": height} if height == width else {"height": height, "width": width},
        "resample": _BILINEAR,
        "do_center_crop": height == width,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
