"""What a format writes: a trained model on its way to a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepa.checkpoint import Checkpoint
from jepa.errors import UserError
from jepa.modality import Modality

LARGEST_DIFFERENCE = 1e-5  # of features in fp32, as a share of the largest feature where that is above 1


class FormatError(UserError, ValueError):
    """A format cannot hold a model; the message names the setting, and the formats that can."""


@dataclass(frozen=True)
class Export:
    """A model to write. checkpoint: its networks; None for an encoder of another family."""

    source: str
    checkpoint: Checkpoint | None
    modality: Modality[Any]
    encoder: nn.Module  # of `which`: inputs -> [B, N, D]
    which: str  # target_encoder or context_encoder
    opset: int

    @property
    def facts(self) -> dict[str, str]:
        """What a user of the encoder has to know, as texts."""
        view = self.modality.example_view()
        shape = list(view.shape) if isinstance(view, Tensor) else []
        return {"encoder": self.which, "grid": " x ".join(map(str, self.modality.grid)), **self._of_pixels(shape)}

    def _of_pixels(self, shape: list[int]) -> dict[str, str]:
        statistics = pixel_statistics(self.modality)
        if statistics is None:
            return {"layout": f"float32 [batch, {', '.join(map(str, shape))}]"}
        mean, std = statistics
        layout = "NCTHW" if len(shape) == 4 else "NCHW"
        return {
            "layout": f"{layout} float32, RGB, (pixel / 255 - mean) / std",
            "mean": " ".join(map(str, mean)),
            "std": " ".join(map(str, std)),
            "resolution": " x ".join(map(str, shape[-2:])),
            **({"frames": str(shape[1])} if len(shape) == 4 else {}),
        }

    def example(self, batch: int = 2, seed: int = 0) -> Tensor:
        """Random inputs of the encoder; raises FormatError if it takes something else than one tensor of numbers."""
        view = self.modality.example_view()
        if not isinstance(view, Tensor) or not view.is_floating_point():
            raise FormatError(
                f"{self.source}: its encoder takes {_form(view)}, and this format holds encoders of one tensor of "
                "floats; --to openjepa keeps every model"
            )
        return torch.randn(batch, *view.shape, generator=torch.Generator().manual_seed(seed))


class Written(NamedTuple):
    """How to load what was written, and what it does not hold."""

    usage: str
    left_out: tuple[str, ...] = ()


def check_features(export: Export, theirs: Callable[[Tensor], Tensor]) -> str:
    """Compare the features of a written encoder with ours; raises FormatError if they differ by more than rounding."""
    differences = []
    for batch in (1, 3):
        inputs = export.example(batch, seed=batch)
        with torch.inference_mode():
            ours, others = export.encoder(inputs), theirs(inputs)
        differences.append(float((others - ours).abs().max() / ours.abs().max().clamp_min(1)))
    if not max(differences) <= LARGEST_DIFFERENCE:  # also for NaN
        raise FormatError(f"{export.source}: features of the written file differ by {max(differences):.1e}; not kept")
    return f"largest difference of features: {max(differences):.1e}"


def pixel_statistics(modality: Modality[Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation by which a modality normalises colours, white being 1; None if it has no colours."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = getattr(modality, "pixel_statistics", None)
    return statistics


def _form(view: Any) -> str:
    if isinstance(view, Tensor):
        return f"{str(view.dtype).removeprefix('torch.')} {list(view.shape)}"
    return "several named tensors" if isinstance(view, Mapping) else f"a {type(view).__name__}"
