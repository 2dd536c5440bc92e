"""The index of a data set beside a run: process 0 lists the data, and all others map what it has written."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

from jepa.data.batches import open_split
from jepa.data.summary import splits_of
from jepa.disk.cache import user_cache
from jepa.disk.columns import IndexFolder
from jepa.distributed import World
from jepa.modality import Modality, Split
from jepa.probe.protocol import EvaluateConfig


def index_of_run(run_dir: Path, writes: bool = False) -> IndexFolder:
    """The index of a run; what `jepa data index` has stored is used too."""
    return IndexFolder(run_dir / "index", (user_cache("index"),), writes)


def open_data(
    modality: Modality[Any], evaluate: EvaluateConfig, run_dir: Path, world: World, probes: bool = False
) -> None:
    """Open every split that a run and its evaluation read, as `open_splits` does."""
    open_splits(modality, splits_of(evaluate, probes), index_of_run(run_dir, writes=True), world)


def open_splits(modality: Modality[Any], splits: Sequence[Split], index: IndexFolder, world: World) -> None:
    """Open splits in all processes; raises DataError, and PeerError in other processes.

    Process 0 goes first and writes an index, unless the data is small; the others wait for it, not in a collective of
    GPUs, which gives up after minutes, and read the index.
    """
    with world.error_barrier():
        if world.is_main:
            _open(modality, splits, index)
    used = [index.used]
    if world.size > 1:
        dist.broadcast_object_list(used, src=0, group=world.control)
    with world.error_barrier():
        if not world.is_main:
            _open(modality, splits, IndexFolder(index.path, checks=False, used=used[0]))


def remove_index_without_run(run_dir: Path) -> None:
    """Remove the index of a run that could not start."""
    if (run_dir / "config.yaml").exists():
        return
    for path in (run_dir / "index").glob("*.index"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it does not exist, or holds files of others
        (run_dir / "index").rmdir()


def _open(modality: Modality[Any], splits: Sequence[Split], index: IndexFolder) -> None:
    modality.index_folder = index
    for split in splits:
        open_split(modality, split)
    index.close()
