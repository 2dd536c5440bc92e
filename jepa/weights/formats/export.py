"""What a format writes: a trained model on its way to a file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepa.checkpoint import Checkpoint
from jepa.config import plain
from jepa.encoder import position_table
from jepa.errors import UserError
from jepa.modality import Modality
from jepa.probe.saved import SavedProbe
from jepa.training.config import Config

PLACE = "<path>"  # in Written.usage; no name of a model or an argument holds it
LARGEST_DIFFERENCE = 1e-5  # of features in fp32, as a share of the largest feature where that is above 1


class FormatError(UserError, ValueError):
    """A format cannot hold a model; the message names the setting, and the formats that can."""


@dataclass(frozen=True)
class Export:
    """A model to write. checkpoint: all its networks; None for an encoder of another family."""

    source: str
    checkpoint: Checkpoint | None
    config: Config[Any, Any]
    modality: Modality[Any]
    encoder: nn.Module  # of `which`: inputs -> [B, N, D]
    which: str  # target_encoder or context_encoder
    opset: int
    probe: SavedProbe | None = None  # to write on top of the encoder

    def weights(self, network: str) -> dict[str, Tensor]:
        """Weights of a network, such as `predictor`, under our names; empty if there is none."""
        assert self.checkpoint is not None
        prefix, state = f"{network}.", self.checkpoint.model
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    def table(self, width: int) -> Tensor | None:
        """Table of positions [1, N, width] that is added to tokens; None if positions are rotary.

        Computed in fp64, as the authors' code does: a published table has the same bits.
        """
        kind = self.config.model.positions
        if not kind.startswith("sincos"):
            return None
        return position_table(kind, self.modality.positions.double(), width).float().unsqueeze(0)

    @property
    def patch(self) -> tuple[int, ...]:
        """Shape of a patch: colours, frames of videos, rows and columns."""
        data = self.modality.config
        frames = (data.tubelet,) if hasattr(data, "tubelet") else ()
        return (3, *frames, data.patch_size, data.patch_size)

    @property
    def other_encoder(self) -> str:
        """The encoder that is not written, for a format of one encoder."""
        other = "context_encoder" if self.which == "target_encoder" else "target_encoder"
        return f"{other} (the format has one encoder; --which {other} writes this one)"

    @property
    def other_networks(self) -> list[str]:
        """The networks that are not written, for a format of one encoder alone."""
        return [self.other_encoder, *(["predictor (the format has none)"] if self.weights("predictor") else [])]

    @property
    def beside_networks(self) -> list[str]:
        """What a checkpoint holds beside the three networks, in words."""
        assert self.checkpoint is not None
        networks = {name.partition(".")[0] for name in self.checkpoint.model}
        names = sorted(networks - {"context_encoder", "predictor", "target_encoder"})
        return [*names, *(["optimiser state"] if self.checkpoint.optimizer else [])]

    @property
    def settings(self) -> dict[str, Any]:
        """The config without what belongs to this machine and to the training data."""
        tree = plain(self.config)
        data = {name: value for name, value in tree["data"].items() if name not in _OF_DATA}
        return {"modality": tree["modality"], "data": data, "model": tree["model"], "loss": tree["loss"]}

    @property
    def pixels(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation by which colours are normalised, white being 1; None if there are no colours."""
        data = self.modality.config
        if not (hasattr(data, "pixel_mean") and hasattr(data, "pixel_std")):
            return None
        return list(data.pixel_mean), list(data.pixel_std)

    @property
    def facts(self) -> dict[str, str]:
        """What a user of the encoder has to know, as texts."""
        view = self.modality.example_view()
        shape = list(view.shape) if isinstance(view, Tensor) else []
        return {"encoder": self.which, "grid": " x ".join(map(str, self.modality.grid)), **self._of_inputs(shape)}

    def _of_inputs(self, shape: list[int]) -> dict[str, str]:
        if self.pixels is None:
            return {"layout": f"float32 [batch, {', '.join(map(str, shape))}]"}
        mean, std = (" ".join(map(str, values)) for values in self.pixels)
        layout = f"{'NCTHW' if len(shape) == 4 else 'NCHW'} float32, RGB, (pixel / 255 - mean) / std"
        frames = {"frames": str(shape[1])} if len(shape) == 4 else {}
        return {"layout": layout, "mean": mean, "std": std, "resolution": f"{shape[-2]} x {shape[-1]}", **frames}

    def example(self, batch: int = 2, seed: int = 0) -> Tensor:
        """Inputs of the encoder: random numbers, or the values of a sample in random order if the example is one.

        A sample may hold what random numbers are not, such as codes of categories.
        """
        view: Tensor = self.modality.example_view()
        generator = torch.Generator().manual_seed(seed)
        if not view.any():
            return torch.randn(batch, *view.shape, generator=generator)
        orders = [torch.randperm(view.numel(), generator=generator) for _ in range(batch)]
        return torch.stack([view.flatten()[order].view(view.shape) for order in orders])


_OF_DATA = {"source", "root", "torchvision", "scenes", "max_bad_fraction"}


class Written(NamedTuple):
    """How to load what was written, and what it does not hold."""

    usage: str  # with PLACE for the path
    left_out: tuple[str, ...] = ()

    def loaded_from(self, path: Path | str) -> str:
        """How to load it from a path."""
        return self.usage.replace(PLACE, quoted(path))


def quoted(path: Path | str) -> str:
    """A path as a string in Python code."""
    return json.dumps(str(path), ensure_ascii=not str(path).isprintable())


def check_features(export: Export, theirs: Callable[[Tensor], Tensor]) -> str:
    """Compare the features of a written encoder with ours; raises FormatError if they differ by more than rounding."""
    return f"largest difference of features: {largest_difference(export, theirs):.1e}"


def largest_difference(export: Export, theirs: Callable[[Tensor], Tensor]) -> float:
    """Largest difference of outputs on random inputs, relative to outputs above 1; raises FormatError as above."""
    differences = []
    for batch in (1, 3):
        inputs = export.example(batch, seed=batch)
        with torch.inference_mode():
            ours, others = export.encoder(inputs), theirs(inputs)
        differences.append(float((others - ours).abs().max() / ours.abs().max().clamp_min(1)))
    if not max(differences) <= LARGEST_DIFFERENCE:  # also for NaN
        raise FormatError(f"{export.source}: features of the written file differ by {max(differences):.1e}; not kept")
    return max(differences)


def check_weights(export: Export, theirs: Mapping[str, Tensor]) -> str:
    """Compare the weights that are read back, under our names, with ours; raises FormatError if they differ."""
    assert export.checkpoint is not None
    ours = export.checkpoint.model
    if strange := [name for name, value in theirs.items() if name not in ours or not torch.equal(value, ours[name])]:
        raise FormatError(f"{export.source}: {strange[0]} of the written file differs; not kept")
    return f"all {len(theirs)} weights are equal"
