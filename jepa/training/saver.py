"""Save and resume a run: one checkpoint file, or a folder of shards if the model is sharded over processes."""

import json
import shutil
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
from jepa.disk import WriteError
from jepa.distributed import World, is_sharded


class Saver:
    """Saves and restores a run. Sharded models are written in the background while training continues.

    A run can resume from either form of checkpoint, with any number of processes, sharded or not.
    """

    def __init__(
        self, run_dir: Path, config: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, world: World
    ) -> None:
        self.run_dir, self.config, self.model, self.optimizer, self.world = run_dir, config, model, optimizer, world
        self.sharded = is_sharded(model)
        if self.sharded:
            # A separate group: the background thread's collectives must not mix with those of training.
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup)
            self.group = group
            self.publisher = ThreadPoolExecutor(1)
        self.unfinished: Future[None] | None = None

    def restore(self, path: Path | None, start: Path | None = None) -> tuple[int, float]:
        """Load a checkpoint, the same in all processes -> optimiser steps done, seconds spent; None for a fresh run.

        start: a run or file whose networks a fresh run starts from. Raises CheckpointError, and PeerError if another
        process raised it.
        """
        if path is None:
            if start is not None:
                self._load_start(start.expanduser())
            return 0, 0.0
        if self.sharded:
            return self._restore_shards(path)
        with self.world.error_barrier():
            checkpoint = Checkpoint.load(path, self.world.device)
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        return checkpoint.step, checkpoint.seconds

    def _load_start(self, start: Path) -> None:
        """Load the networks, but not the step or optimiser, of another run or a released file.

        Raises CheckpointError if it is missing or its networks do not fit, and PeerError if another process raised it.
        """
        own = self.model.state_dict()
        with self.world.error_barrier():
            found = read_networks(start) if self.world.is_main or not self.sharded else None
            if found is not None:
                # V-JEPA 2 files hold up to ten mask tokens, trained only as far as there were mask sets.
                found = {name: value for name, value in found.items() if name in own or ".mask_tokens." not in name}
                _check_same_networks(start, found, own)
        if self.sharded:
            from jepa.training.fsdp import spread

            for name, tensor in own.items():
                spread(None if found is None else found[name], tensor)
        else:
            assert found is not None
            self.model.load_state_dict(found)

    def save(self, step: int, seconds: float) -> None:
        """Save the current state; every process must call. A sharded model may change as soon as this returns."""
        if self.sharded:
            self._save_shards(Checkpoint(step, seconds, self.config, {}, {}))
        elif self.world.is_main:
            state = (self.model.state_dict(), self.optimizer.state_dict())
            Checkpoint(step, seconds, self.config, *state).save(latest(self.run_dir))
            remove_other_shards(self.run_dir)

    def wait(self) -> None:
        """Wait until all processes have written; raises the error if writing failed."""
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
        groups = {"param_groups": json.loads(json.dumps(state["param_groups"]))}  # a copy
        run = Checkpoint(run.step, run.seconds, run.config, {}, groups)
        self.unfinished = self.publisher.submit(self._finish, written, folder, run)

    def _finish(self, written: Future[Any], folder: Path, run: Checkpoint) -> None:
        from jepa.checkpoint.shards import ShardsError, finish_writing

        try:
            finish_writing(written)
        except (ShardsError, WriteError) as error:
            if self.world.is_main:
                shutil.rmtree(folder, ignore_errors=True)  # so that it does not keep the disk full
            if isinstance(error, WriteError):
                raise
            raise CheckpointError(f"{folder} cannot be written: {error}") from error
        if self.world.is_main:
            publish_shards(folder, run, latest(self.run_dir))
            remove_other_shards(self.run_dir)

    def _restore_shards(self, path: Path) -> tuple[int, float]:
        """Fill this process's shards from a folder of shards, or from a file that rank 0 reads."""
        from jepa.checkpoint.shards import names, read_into
        from jepa.training.fsdp import spread

        groups = self.optimizer.state_dict()["param_groups"]
        tensors = flatten(self.model.state_dict(), {"state": self._empty_state()})
        if path.is_dir():
            with self.world.error_barrier():
                run = read_run(path)
                try:
                    saved_names = names(path)
                except Exception as error:  # pickle raises many exception types
                    raise unreadable(path, error) from error
            tensors = _saved(tensors, saved_names)
            try:
                read_into(tensors, path)
            except Exception as error:  # torch raises many exception types
                raise unreadable(path, error) from error
        else:
            with self.world.error_barrier():
                run = Checkpoint.load(path) if self.world.is_main else Checkpoint(0, 0.0, {}, {}, {"state": {}})
            source = flatten(run.model, run.optimizer)
            listed = [set(source)]
            dist.broadcast_object_list(listed, src=0, group=self.group)
            tensors = _saved(tensors, listed[0])
            for name, tensor in tensors.items():
                spread(source.get(name), tensor)
        self.optimizer.load_state_dict({"state": unflatten(tensors)[1], "param_groups": groups})
        progress = torch.tensor([float(run.step), run.seconds], dtype=torch.float64)
        dist.broadcast(progress, src=0, group=self.group)
        return int(progress[0]), float(progress[1])

    def _empty_state(self) -> dict[int, dict[str, Tensor]]:
        """AdamW state of every parameter, to be filled with what was saved."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return {
            index: {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter).detach(),
                "exp_avg_sq": torch.zeros_like(parameter).detach(),
            }
            for index, parameter in enumerate(parameters)
        }


def _saved(tensors: Mapping[str, Tensor], saved: Collection[str]) -> dict[str, Tensor]:
    """The tensors to request from a checkpoint, which has no optimiser state of weights that no step has used yet.

    Missing weights are kept in the request, so that the loader reports them.
    """
    return {name: tensor for name, tensor in tensors.items() if name in saved or name.startswith("model.")}


def _check_same_networks(path: Path, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if names or shapes differ from the networks of the config."""
    shapes, expected = ({name: value.shape for name, value in state.items()} for state in (found, own))
    wrong = [name for name in sorted({*found, *own}) if shapes.get(name) != expected.get(name)]
    if wrong:
        raise CheckpointError(
            f"start_from: {len(wrong)} of {len(own)} tensors of {path} differ from the networks of this config; "
            f"the first is {wrong[0]}"
        )
