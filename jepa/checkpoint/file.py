"""The checkpoint type, saved atomically as one file or as a folder of shards from several processes."""

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from jepa.checkpoint.places import (
    Step as Step,
    best as best,
    kept as kept,
    latest as latest,
    shards_folder as shards_folder,
)
from jepa.compat.stages import current
from jepa.disk import replacing, writing
from jepa.errors import UserError

FORMAT = 1  # raised when a field changes its meaning
RUN_FILE = "run.json"  # everything but the tensors, in a folder of shards


class CheckpointError(UserError, ValueError):
    """A checkpoint cannot be read; the message is one sentence for the user."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to resume; the rest is a function of the step."""

    step: int  # optimiser steps completed
    seconds: float  # spent training so far
    config: dict[str, Any]  # the resolved config as plain data
    model: dict[str, Tensor]  # context encoder, predictor, target encoder
    optimizer: dict[str, Any]

    def save(self, path: Path, *others: Path) -> None:
        """Write to a second file, then rename it: `path` is complete or absent, whenever the process dies.

        others: further names of the file, which stay when `path` is replaced.
        """
        aside = path.with_name(path.name + ".partial")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        with replacing(path, aside):
            aside.unlink(missing_ok=True)
            with aside.open("wb") as file:
                torch.save({"format": FORMAT, **fields}, file)
                file.flush()
                os.fsync(file.fileno())
            for other in others:
                _link(aside, other)
        _sync_folder(path.parent)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", mmap: bool = False) -> "Checkpoint":
        """Read a checkpoint without executing anything in it.

        mmap: map the tensors of a file and read only those that are used; use them before the file is replaced. Of a
        folder of shards, the networks are read, but not the state of the optimiser.
        Raises CheckpointError if the path holds no checkpoint of this framework and format, or a broken one.
        """
        if path.is_dir():
            from jepa.checkpoint.shards import read_all  # slow to import, and few runs are sharded

            run = read_run(path)
            try:
                model, optimizer = unflatten(read_all(path, device, "model." if mmap else ""))
            except Exception as error:  # torch and pickle raise many exception types
                raise unreadable(path, error) from error
            return dataclasses.replace(run, model=model, optimizer={**run.optimizer, "state": optimizer})
        if not path.is_file():
            raise CheckpointError(f"no checkpoint at {path}")
        return cls.of(path, read_content(path, device, mmap))

    @classmethod
    def of(cls, path: Path, content: Any) -> "Checkpoint":
        """The checkpoint in the content of a file; raises CheckpointError."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or content.get("format") != FORMAT or set(content) != {"format", *names}:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT} of this framework (found: {found})")
        fields = {name: content[name] for name in names}
        return cls(**{**fields, "config": current(fields["config"])})


def read_content(path: Path, device: torch.device | str = "cpu", mmap: bool = False) -> Any:
    """Content of a file of torch.save, read without executing anything in it; raises CheckpointError."""
    try:
        is_utf8 = os.fsencode(path).decode("utf-8", "ignore") == str(path)  # torch maps no other names
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what cannot be read is an error
            return torch.load(path, map_location=device, weights_only=True, mmap=mmap and is_zipfile(path) and is_utf8)
    except Exception as error:  # torch raises many exception types
        raise unreadable(path, error) from error


def read_step(path: Path) -> int:
    """Steps completed in a checkpoint, without its tensors; raises CheckpointError."""
    return read_facts(path).step


def read_facts(path: Path) -> Checkpoint:
    """A checkpoint whose tensors are not read, or only mapped; raises CheckpointError."""
    return read_run(path) if path.is_dir() else Checkpoint.load(path, mmap=True)


def kept_steps(run_dir: Path) -> list[int]:
    """Steps of the checkpoints that stay, in order."""
    paths = (run_dir / "checkpoints").glob("step_*.pt")
    return sorted(int(path.stem[5:]) for path in paths if path.stem[5:].isdecimal() and _is_whole(path))


def find_checkpoint(path: Path, step: Step | None = None) -> Path:
    """The path itself; of a run directory its latest checkpoint, or that of a step. Raises CheckpointError."""
    is_run_dir = path.is_dir() and not (path / RUN_FILE).exists()
    if step is None:
        if is_run_dir and not latest(path).exists():
            raise CheckpointError(f"{path} holds no checkpoint; expected {latest(path)}")
        return latest(path) if is_run_dir else path
    if not is_run_dir:
        raise CheckpointError(f"{path} is no run directory, in which to look for the checkpoint of step {step}")
    if step == "best":
        if best(path).exists():
            return best(path)
        raise CheckpointError(f"{path} holds no best checkpoint; a run keeps one if it has a probe (probe.every)")
    if latest(path).exists() and read_step(latest(path)) == step:
        return latest(path)
    if step in (steps := kept_steps(path)):
        if (stored := read_step(kept(path, step))) != step:  # one name of a file was written over, and so all are
            raise CheckpointError(f"{kept(path, step)} holds step {stored}: another checkpoint was copied over it")
        return kept(path, step)
    named = {name: read_step(one) for name, one in (("latest", latest(path)), ("best", best(path))) if one.exists()}
    if named.get("best") == step:
        return best(path)
    found = ", ".join([*map(str, steps), *(f"{one} (the {name})" for name, one in named.items())]) or "none"
    raise CheckpointError(f"{path} holds no checkpoint of step {step}; steps with one: {found}")


def publish_shards(folder: Path, run: Checkpoint, path: Path, *others: Path) -> None:
    """Add everything but the tensors to a folder of shards, and make all paths links to it, `path` last.

    run: without `model`; its `optimizer` holds only the parameter groups.
    """
    content = {"step": run.step, "seconds": run.seconds, "config": run.config, "optimizer": run.optimizer}
    with writing(folder), (folder / RUN_FILE).open("w") as file:
        json.dump({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    for link in (*others, path):
        aside = link.with_name(link.name + ".partial")
        with replacing(link, aside):
            aside.unlink(missing_ok=True)
            aside.symlink_to(folder.name, target_is_directory=True)
    _sync_folder(path.parent)


def read_run(folder: Path) -> Checkpoint:
    """Everything but the tensors of a folder of shards: a checkpoint without a model. Raises CheckpointError."""
    try:
        content = json.loads((folder / RUN_FILE).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a readable checkpoint: {error}") from error
    if content.pop("format", None) != FORMAT:
        raise CheckpointError(f"{folder} is not a checkpoint of format {FORMAT} of this framework")
    return Checkpoint(model={}, **{**content, "config": current(content["config"])})


def flatten(model: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a model and an optimiser in one dictionary, by unique names."""
    tensors = {f"model.{name}": value for name, value in model.items()}
    for index, state in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    return tensors


def unflatten(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """Inverse of `flatten`: state of the model, and of the optimiser by index of the parameter."""
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
    """Remove all folders of shards but the latest, the best and those that stay: older and incomplete ones."""
    linked = (latest(run_dir).resolve(), best(run_dir).resolve())
    for folder in latest(run_dir).parent.glob("step_*"):
        is_ours = folder.is_dir() and folder.name[5:].removesuffix(".pt").isdecimal()  # not a user's copy
        stays = folder.resolve() in linked or (folder.suffix == ".pt" and _is_whole(folder))
        if is_ours and not stays:
            shutil.rmtree(folder)


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end. A file has its name only then."""
    return path.is_file() or (path / RUN_FILE).exists()


def unreadable(path: Path, error: BaseException) -> CheckpointError:
    from jepa.checkpoint.reasons import why_unreadable  # of no use without an error

    return CheckpointError(f"{path} is not a readable checkpoint: {why_unreadable(path, error)}")


def last_checkpoint(run_dir: Path) -> str:
    """Where the last checkpoint of a failed run is, for the error message."""
    path = latest(run_dir)
    return f"the last checkpoint stays at {path}" if path.exists() else "no checkpoint was written yet"


def _link(file: Path, name: Path) -> None:
    """Give a file a second name; where the file system has no hard links, copy it."""
    aside = name.with_name(name.name + ".partial")
    aside.unlink(missing_ok=True)
    try:
        os.link(file, aside)
    except OSError:
        shutil.copyfile(file, aside)
    os.replace(aside, name)  # noqa: PTH105 - atomic


def _sync_folder(path: Path) -> None:
    """Make a change of names in a folder durable."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot open a folder
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
