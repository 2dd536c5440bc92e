"""Save and resume a run: one checkpoint file, or a folder of shards if the model is sharded over processes."""

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.checkpoint.file import (
    best,
    flatten,
    kept,
    last_checkpoint,
    publish_shards,
    read_run,
    remove_other_shards,
    shards_folder,
    unflatten,
    unreadable,
)
from jepa.console import warn_once
from jepa.disk import WriteError
from jepa.distributed import World, is_sharded
from jepa.ops.muon import empty_state
from jepa.training.host_copy import host_copy

Start = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]  # weights of a run -> those that it starts from


class Saver:
    """Saves and restores a run. A thread writes a copy of the state while training continues.

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
        self.unfinished: Future[None] | None = None

    def restore(self, path: Path | None, start: Start | None = None) -> tuple[int, float]:
        """Load a checkpoint, the same in all processes -> optimiser steps done, seconds spent; None for a fresh run.

        start: gives the weights from which a fresh run starts. Raises CheckpointError, and PeerError if another process
        raised it, and the errors of `start`.
        """
        if path is None:
            if start is not None:
                self._load_start(start)
            return 0, 0.0
        if self.sharded:
            return self._restore_shards(path)
        with self.world.error_barrier():
            checkpoint = Checkpoint.load(path, self.world.device)
        self.model.load_state_dict(checkpoint.model)
        with self.world.error_barrier():
            try:
                self.optimizer.load_state_dict(checkpoint.optimizer)
            except ValueError as error:
                raise CheckpointError(
                    f"{path}: the optimiser's state is of other groups of weights, as another version made them "
                    f"({error}); to train on, start a run with a new run_dir and start_from={path}"
                ) from error
        return checkpoint.step, checkpoint.seconds

    def _load_start(self, start: Start) -> None:
        """Load the weights that `start` gives; all others stay as drawn. Raises its errors, and PeerError."""
        own = self.model.state_dict()
        with self.world.error_barrier():
            found = start(own) if self.world.is_main or not self.sharded else {}
        if self.sharded:
            from jepa.training.fsdp import spread

            names = [list(found)]
            dist.broadcast_object_list(names, src=0, group=self.group)
            for name in names[0]:
                spread(found.get(name), own[name])
        else:
            self.model.load_state_dict({**own, **found})

    def save(self, step: int, seconds: float, keep: bool = False, is_best: bool = False) -> None:
        """Copy the current state and start to write the copy; every process must call, and may train on at once.

        keep: whether the checkpoint stays when later ones are written. is_best: whether it stays until a better one is
        written. Waits for the save before. Raises its error or that of the copy, and PeerError if another process
        raised one.
        """
        self.wait()
        run = Checkpoint(step, seconds, self.config, {}, {})
        others = [best(self.run_dir)] * is_best
        write = self._shards(run, keep, others) if self.sharded else self._file(run, keep, others)
        pool = ThreadPoolExecutor(1, "checkpoint")
        self.unfinished = pool.submit(write)
        pool.shutdown(wait=False)  # its thread ends with the save: a process with threads is bad to fork

    def check(self) -> None:
        """Raise the error of the last save, if it has failed by now; call it within an error barrier."""
        if self.unfinished is not None and self.unfinished.done():
            self.unfinished.result()

    def wait(self) -> None:
        """Wait until all processes have written; raises the error if writing failed. Every process must call."""
        if self.unfinished is not None:
            with self.world.error_barrier():
                self.unfinished.result()
            self.unfinished = None

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Wait for this process's save as the body ends, and add to an error of writing what is left of the run."""
        try:
            yield
        except Exception as error:
            last = self.last()
            failed = self.unfinished.exception() if self.unfinished is not None else None
            if failed not in (None, error):
                warn_once(f"the checkpoint in progress was lost as well: {failed}")
            if isinstance(error, WriteError):
                raise WriteError(f"{error}; {last}. Free some space and run the same command again") from error
            raise
        finally:
            self.last()

    def last(self) -> str:
        """Where the last checkpoint is, once this process has ended its save, for the error message."""
        if self.unfinished is not None:
            wait([self.unfinished])
        return last_checkpoint(self.run_dir)

    def _file(self, run: Checkpoint, keep: bool, others: list[Path]) -> Callable[[], None]:
        """What writes a checkpoint file of the current state."""
        with self.world.error_barrier():
            if not self.world.is_main:
                return lambda: None
            state = (self.model.state_dict(), self.optimizer.state_dict())
            model, optimizer = host_copy(state, self.world.device)

        def write() -> None:
            names = [*others, *([kept(self.run_dir, run.step)] * keep)]
            replace(run, model=model, optimizer=optimizer).save(latest(self.run_dir), *names)
            remove_other_shards(self.run_dir)

        return write

    def _shards(self, run: Checkpoint, keep: bool, others: list[Path]) -> Callable[[], None]:
        """What finishes the writing of shards of the current state, which this call starts."""
        from jepa.checkpoint.shards import start_writing

        folder = shards_folder(self.run_dir, run.step, keep)
        with self.world.error_barrier():
            if self.world.is_main:
                remove_other_shards(self.run_dir)
                if folder.is_dir():  # kept before the run went back to an earlier step
                    if best(self.run_dir).resolve() == folder.resolve():  # a kill must leave no link to half a folder
                        best(self.run_dir).unlink()
                    shutil.rmtree(folder)
        state = self.optimizer.state_dict()
        written = start_writing(flatten(self.model.state_dict(), state), folder, self.group)
        groups = {"param_groups": json.loads(json.dumps(state["param_groups"]))}  # a copy
        return partial(self._finish, written, folder, replace(run, optimizer=groups), others)

    def _finish(self, written: Future[Any], folder: Path, run: Checkpoint, others: list[Path]) -> None:
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
            publish_shards(folder, run, latest(self.run_dir), *others)
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
                spread(source.get(name), tensor, on_host=self.group)
        self.optimizer.load_state_dict({"state": unflatten(tensors)[1], "param_groups": groups})
        progress = torch.tensor([float(run.step), run.seconds], dtype=torch.float64)
        dist.broadcast(progress, src=0, group=self.group)
        return int(progress[0]), float(progress[1])

    def _empty_state(self) -> dict[int, dict[str, Tensor]]:
        """The optimiser's state of every parameter, to be filled with what was saved."""
        groups = self.optimizer.param_groups
        states = (empty_state(group, parameter) for group in groups for parameter in group["params"])
        return dict(enumerate(states))


def _saved(tensors: Mapping[str, Tensor], saved: Collection[str]) -> dict[str, Tensor]:
    """The tensors to request from a checkpoint, which has no optimiser state of weights that no step has used yet.

    Missing weights are kept in the request, so that the loader reports them.
    """
    return {name: tensor for name, tensor in tensors.items() if name in saved or name.startswith("model.")}
