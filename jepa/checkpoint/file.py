"""A checkpoint is one type, saved atomically: a file, or a folder of the shards of several processes."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa.errors import UserError

FORMAT = 1  # raised when a field changes its meaning
RUN_FILE = "run.json"  # in a folder of shards: all of a checkpoint that is not tensors


class CheckpointError(UserError, ValueError):
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
        aside.unlink(missing_ok=True)
        with aside.open("wb") as file:
            torch.save({"format": FORMAT, **fields}, file)
            file.flush()
            os.fsync(file.fileno())
        _publish(aside, path)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "Checkpoint":
        """Read a checkpoint without executing anything in it.

        Raises CheckpointError where the file or folder is none of ours, broken, or of a newer format.
        """
        if path.is_dir():
            return _load_shards(path, device)
        if not path.is_file():
            raise CheckpointError(f"no checkpoint at {path}")
        try:
            content = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # torch names its reasons in many exception types
            raise unreadable(path, error) from error
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or content.get("format") != FORMAT or set(content) != {"format", *names}:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT} of this framework (found: {found})")
        return cls(**{name: content[name] for name in names})


def latest(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint from which it goes on: a file, or a link to a folder of shards."""
    return run_dir / "checkpoints" / "latest.pt"


def shards_folder(run_dir: Path, step: int) -> Path:
    """The folder into which the shards of a step are written."""
    return run_dir / "checkpoints" / f"step_{step}"


def publish_shards(folder: Path, run: Checkpoint, path: Path) -> None:
    """Add to a folder of shards what is not tensors, and make `path` point to it, in place of what was there.

    run: without `model`; its `optimizer` holds the parameter groups alone.
    """
    fields = {"step": run.step, "seconds": run.seconds, "config": run.config, "optimizer": run.optimizer}
    with (folder / RUN_FILE).open("w") as file:
        json.dump({"format": FORMAT, **fields}, file)
        file.flush()
        os.fsync(file.fileno())
    aside = path.with_name(path.name + ".partial")
    aside.unlink(missing_ok=True)
    aside.symlink_to(folder.name, target_is_directory=True)
    _publish(aside, path)


def read_run(folder: Path) -> Checkpoint:
    """What a folder of shards holds beside tensors: a checkpoint without a model; raises CheckpointError."""
    try:
        content = json.loads((folder / RUN_FILE).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a readable checkpoint: {error}") from error
    if content.pop("format", None) != FORMAT:
        raise CheckpointError(f"{folder} is not a checkpoint of format {FORMAT} of this framework")
    return Checkpoint(model={}, **content)


def flatten(model: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of a model's and an optimiser's state by one name."""
    tensors = {f"model.{name}": value for name, value in model.items()}
    for index, state in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    return tensors


def unflatten(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """State of a model and, by parameter, of an optimiser; what `flatten` joined."""
    model: dict[str, Tensor] = {}
    optimizer: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            model[rest] = value
        else:
            index, _, key = rest.partition(".")
            optimizer.setdefault(int(index), {})[key] = value
    return model, optimizer


def remove_other_shards(run_dir: Path) -> None:
    """Remove folders of shards that the latest checkpoint is not: older ones, and what was cut short."""
    kept = latest(run_dir).resolve()
    for folder in latest(run_dir).parent.glob("step_*"):
        if folder.resolve() != kept:
            shutil.rmtree(folder)


def _load_shards(folder: Path, device: torch.device | str) -> Checkpoint:
    from jepa.checkpoint.shards import read_all  # much to import, for what few runs have

    run = read_run(folder)
    try:
        model, optimizer = unflatten(read_all(folder, device))
    except Exception as error:  # torch and pickle name their reasons in many exception types
        raise unreadable(folder, error) from error
    return dataclasses.replace(run, model=model, optimizer={**run.optimizer, "state": optimizer})


def unreadable(path: Path, error: BaseException) -> CheckpointError:
    """The sentence about a checkpoint that cannot be read."""
    return CheckpointError(f"{path} is not a readable checkpoint: {_reason(error)}")


def _reason(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "") or type(error).__name__


def _publish(aside: Path, path: Path) -> None:
    """Move a finished file into place, atomically and durably."""
    os.replace(aside, path)  # noqa: PTH105 - the call whose atomicity is meant
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no folder
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
