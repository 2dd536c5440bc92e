"""A checkpoint is one type, saved atomically."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1  # raised when a field changes its meaning


class CheckpointError(ValueError):
    """A checkpoint cannot be read; its message is one sentence for the user."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on; everything else is a function of the step."""

    step: int  # optimiser steps completed
    seconds: float  # spent training so far
    config: dict[str, Any]  # the resolved config as plain data
    model: dict[str, Tensor]  # context encoder, predictor, target encoder
    optimizer: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write aside, then replace: whenever the process dies, `path` holds one whole checkpoint or none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".partial")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        with aside.open("wb") as file:
            torch.save({"format": FORMAT, **fields}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)  # noqa: PTH105 - the call whose atomicity is meant
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "Checkpoint":
        """Read a checkpoint without executing anything in it.

        Raises CheckpointError where the file is none of ours, broken, or of a newer format.
        """
        if not path.is_file():
            raise CheckpointError(f"no checkpoint at {path}")
        try:
            content = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # torch names its reasons in many exception types
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or content.get("format") != FORMAT or set(content) != {"format", *names}:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT} of this framework (found: {found})")
        return cls(**{name: content[name] for name in names})


def latest(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint from which it goes on."""
    return run_dir / "checkpoints" / "latest.pt"
