"""Whether a run resumes, and at which step: rank 0 decides, and every other process must see the same run and data."""

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from jepa.checkpoint.file import CheckpointError, best, kept, kept_steps, latest, read_step
from jepa.config import ConfigError, differences, plain
from jepa.data.summary import digest_of
from jepa.distributed import World
from jepa.modality import Samples
from jepa.training.config import Config

PATIENCE = 60.0  # seconds until a network file system shows every node what another one wrote


@dataclass(frozen=True)
class Seen:
    """What a process sees before it builds the networks. step: of the latest checkpoint, None if there is none."""

    process: str
    config: dict[str, Any]
    samples: int
    digest: str
    step: int | None

    @property
    def checkpoint(self) -> str:
        return "no checkpoint" if self.step is None else f"a checkpoint of step {self.step}"


def checkpoint_to_resume(config: Config[Any, Any], samples: Samples, world: World) -> Path | None:
    """The checkpoint from which all processes resume, None for a fresh run.

    Raises ConfigError in a process that does not see what rank 0 sees, CheckpointError if the checkpoint is broken, and
    PeerError if another process raised one of them.
    """
    path = latest(config.run_dir)
    with world.error_barrier():
        process = f"process {world.rank} on {socket.gethostname()}"
        own = Seen(process, plain(config), len(samples), digest_of(samples), _step(path))
    if world.size > 1:
        decided: list[Any] = [own]
        dist.broadcast_object_list(decided, src=0, group=world.control)
        with world.error_barrier():
            _check_same(decided[0], own, path)
        own = decided[0]
    return None if own.step is None else path


def _check_same(main: Seen, own: Seen, path: Path) -> None:
    """Raise ConfigError if this process would train another run than rank 0, or from another step."""
    changed = [line for line in differences(main.config, own.config) if not line.startswith("data.root (")]
    if changed:
        raise ConfigError(
            f"{own.process} has another config than {main.process}: {'; '.join(changed[:5])}. Start all processes with "
            "the same command and the same recipe"
        )
    if (main.samples, main.digest) != (own.samples, own.digest):
        others = "others with other names" if main.samples == own.samples else f"{own.samples:,}"
        raise ConfigError(
            f"data: {main.process} finds {main.samples:,} training samples, and {own.process} finds {others}; "
            "all nodes must hold the same data"
        )
    if (step := _step_in_time(path, main.step)) != main.step:
        seen = Seen(own.process, {}, 0, "", step)
        raise ConfigError(
            f"run_dir: {main.process} sees {main.checkpoint} in {path.parent.parent}, and {seen.process} sees "
            f"{seen.checkpoint} there; put the run directory on storage that all nodes share, and start the run again"
        )


def _step_in_time(path: Path, expected: int | None) -> int | None:
    """The step of the latest checkpoint; a node of a network file system may see it late, so wait for it."""
    end = time.monotonic() + PATIENCE
    while (step := _step(path)) != expected and time.monotonic() < end:
        time.sleep(min(1.0, PATIENCE / 10))
        with suppress(OSError):  # opening a folder makes NFS ask its server again
            list(path.parent.iterdir())
    return step


def _step(path: Path) -> int | None:
    try:
        return read_step(path) if path.exists() else None
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {_other_ways(path.parent.parent)}") from error


def _other_ways(run_dir: Path) -> str:
    """What the user can do if the latest checkpoint cannot be read."""
    others = [kept(run_dir, step).name for step in kept_steps(run_dir)] + [best(run_dir).name] * best(run_dir).exists()
    if not others:
        return "There is no other one, as keep_every and probe.every are off: remove it to start from the first step"
    return f"To resume from another one, remove it and copy one of these to its name: {', '.join(others)}"
