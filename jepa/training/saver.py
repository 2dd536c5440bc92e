"""Saving a run and going on from what was saved: one file, or shards where the model is spread over processes."""

import json
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.checkpoint.file import (
    flatten,
    publish_shards,
    read_run,
    remove_other_shards,
    shards_folder,
    unflatten,
    unreadable,
)
from jepa.checkpoint.released import read_networks
from jepa.distributed import World, is_sharded


class Saver:
    """Checkpoints of one attempt at a run. A sharded model is written in the background, while training goes on.

    Whatever was saved can be gone on from with any number of processes, sharded or not.
    """

    def __init__(
        self, run_dir: Path, config: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, world: World
    ) -> None:
        self.run_dir, self.config, self.model, self.optimizer, self.world = run_dir, config, model, optimizer, world
        self.sharded = is_sharded(model)
        if self.sharded:
            # A group of its own, as what it exchanges in the background must not mix with the training's.
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup)
            self.group = group
            self.publisher = ThreadPoolExecutor(1)
        self.unfinished: Future[None] | None = None

    def restore(self, start: Path | None = None) -> tuple[int, float]:
        """Load the last checkpoint -> optimiser steps done, seconds spent; (0, 0) for a fresh run.

        start: a run whose networks a fresh run begins with. Raises CheckpointError, and PeerError where another process
        met one.
        """
        path = latest(self.run_dir)
        if not path.exists():
            if start is not None:
                self._begin(start.expanduser())
            return 0, 0.0
        if self.sharded:
            return self._restore_shards(path)
        with self.world.error_barrier():
            checkpoint = Checkpoint.load(path, self.world.device)
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        return checkpoint.step, checkpoint.seconds

    def _begin(self, start: Path) -> None:
        """Load the networks of another run or of a released file; its step and optimiser stay behind.

        Raises CheckpointError where it is not there or its networks are others, and PeerError where another process
        met one.
        """
        own = self.model.state_dict()
        with self.world.error_barrier():
            found = read_networks(start) if self.world.is_main or not self.sharded else None
            if found is not None:
                found = _without_other_mask_tokens(found, own)
                _check_alike(start, found, own)
        if self.sharded:
            from jepa.training.fsdp import spread

            for name, tensor in own.items():
                spread(None if found is None else found[name], tensor)
        else:
            assert found is not None
            self.model.load_state_dict(found)

    def save(self, step: int, seconds: float) -> None:
        """Save what is now; every process must call. A sharded model may change as soon as this returns."""
        if self.sharded:
            self._save_shards(Checkpoint(step, seconds, self.config, {}, {}))
        elif self.world.is_main:
            state = (self.model.state_dict(), self.optimizer.state_dict())
            Checkpoint(step, seconds, self.config, *state).save(latest(self.run_dir))
            remove_other_shards(self.run_dir)

    def wait(self) -> None:
        """Until what is being written is written, by all processes; raises what went wrong."""
        if self.unfinished is not None:
            with self.world.error_barrier():
                self.unfinished.result()
            self.unfinished = None

    def _save_shards(self, run: Checkpoint) -> None:
        from jepa.checkpoint.shards import start_writing

        self.wait()
        with self.world.error_barrier():
            if self.world.is_main:
                remove_other_shards(self.run_dir)
        folder = shards_folder(self.run_dir, run.step)
        state = self.optimizer.state_dict()
        written = start_writing(flatten(self.model.state_dict(), state), folder, self.group)
        groups = {"param_groups": json.loads(json.dumps(state["param_groups"]))}  # as they are now
        run = Checkpoint(run.step, run.seconds, run.config, {}, groups)
        self.unfinished = self.publisher.submit(self._finish, written, folder, run)

    def _finish(self, written: Future[Any], folder: Path, run: Checkpoint) -> None:
        from jepa.checkpoint.shards import ShardsError, finish_writing

        try:
            finish_writing(written)
        except ShardsError as error:
            raise CheckpointError(f"{folder} cannot be written: {error}") from error
        if self.world.is_main:
            publish_shards(folder, run, latest(self.run_dir))
            remove_other_shards(self.run_dir)

    def _restore_shards(self, path: Path) -> tuple[int, float]:
        """Fill this process's shards, from a folder of shards or from what the first process reads in a file."""
        from jepa.checkpoint.shards import names, read_into
        from jepa.training.fsdp import spread

        groups = self.optimizer.state_dict()["param_groups"]
        tensors = flatten(self.model.state_dict(), {"state": self._empty_state()})
        if path.is_dir():
            with self.world.error_barrier():
                run = read_run(path)
            try:
                tensors = _there(tensors, names(path))
                read_into(tensors, path)
            except Exception as error:  # torch names its reasons in many exception types
                raise unreadable(path, error) from error
        else:
            with self.world.error_barrier():
                run = Checkpoint.load(path) if self.world.is_main else Checkpoint(0, 0.0, {}, {}, {"state": {}})
            source = flatten(run.model, run.optimizer)
            saved = [set(source)]
            dist.broadcast_object_list(saved, src=0, group=self.group)
            tensors = _there(tensors, saved[0])
            for name, tensor in tensors.items():
                spread(source.get(name), tensor)
        self.optimizer.load_state_dict({"state": unflatten(tensors)[1], "param_groups": groups})
        progress = torch.tensor([float(run.step), run.seconds], dtype=torch.float64)
        dist.broadcast(progress, src=0, group=self.group)
        return int(progress[0]), float(progress[1])

    def _empty_state(self) -> dict[int, dict[str, Tensor]]:
        """State of AdamW for every parameter, to be filled as far as it was saved."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return {
            index: {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter).detach(),
                "exp_avg_sq": torch.zeros_like(parameter).detach(),
            }
            for index, parameter in enumerate(parameters)
        }


def _there(tensors: Mapping[str, Tensor], saved: Collection[str]) -> dict[str, Tensor]:
    """What of a model's and an optimiser's state was saved: weights that no step has used yet have no optimiser state.

    Weights that were not saved stay, for the reader to miss them.
    """
    return {name: tensor for name, tensor in tensors.items() if name in saved or name.startswith("model.")}


def _without_other_mask_tokens(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """V-JEPA 2's files hold up to ten mask tokens, of which as many learned as there were sets of masks."""
    return {name: value for name, value in found.items() if name in own or ".mask_tokens." not in name}


def _check_alike(path: Path, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where networks are not those of the config."""

    def differs(name: str) -> bool:
        return name not in found or name not in own or found[name].shape != own[name].shape

    wrong = [name for name in sorted({*found, *own}) if differs(name)]
    if wrong:
        raise CheckpointError(
            f"start_from: the networks of {path} are not those of this config; {len(wrong)} of {len(own)} tensors "
            f"differ, the first is {wrong[0]}"
        )
