"""The whole of `jepa embed`: prepare, compute the missing batches in one or several processes, join the parts."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from jepa.checkpoint.lock import locked
from jepa.config import ConfigError
from jepa.console import CONSOLE, shown
from jepa.data import DataError
from jepa.data.bad_files import bad_line
from jepa.data.index import open_splits
from jepa.disk import writing
from jepa.disk.cache import user_cache
from jepa.disk.columns import IndexFolder, read_columns, write_columns
from jepa.distributed import World, join
from jepa.distributed.peers import failing_together
from jepa.embedding.compute import Computation
from jepa.embedding.job import Source
from jepa.embedding.outputs import Shape, beside, check_format, write_output
from jepa.embedding.parts import PartsFolder, shares
from jepa.embedding.progress import Progress
from jepa.embedding.rows import BadRow, Chain, Rows, SpanDataset, WindowTable, window_table
from jepa.embedding.settings import SPLITS
from jepa.embedding.tables import column_types, tables
from jepa.embedding.vectors import VECTOR, Embedder, StreamEmbedder
from jepa.embedding.windows import WindowedModality
from jepa.evaluate.reading import batches
from jepa.training.numerics import bf16_everywhere

SAVE_EVERY = 15.0  # seconds of work that a kill may cost
_TABLE_BYTES, _TABLE_ROWS = 2**25, 2**14  # of a table that is joined, at most
_POLL = 0.2  # seconds


def embed_file(source: Source, output: Path, *, overwrite: bool = False, save_every: float = SAVE_EVERY) -> None:
    """Write the vectors of all samples; all processes of a group call this. Raises UserError."""
    check_format(output)
    try:
        world = join(source.config.compute.device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    parts = PartsFolder(output)
    with failing_together(world):
        with ExitStack() as stack:
            with world.error_barrier():
                if world.is_main:
                    stack.enter_context(locked(parts.path, output))
            _embed(source, parts, world, overwrite, save_every)
        if world.is_main:
            with suppress(OSError):  # it is not empty
                parts.path.rmdir()
    if world.size > 1:  # without waiting for the others, which may take hours
        dist.destroy_process_group()


def _embed(source: Source, parts: PartsFolder, world: World, overwrite: bool, save_every: float) -> None:
    if run := _prepared(source, parts, world, overwrite):
        with run.progress.shown():
            run.compute(save_every)
        if world.is_main:
            run.join()
    if world.is_main:
        parts.remove()
        CONSOLE.print(shown(f"vectors: {parts.output}"))


def _prepared(source: Source, parts: PartsFolder, world: World, overwrite: bool) -> "_Run | None":
    """Open the networks and the data in all processes, and find what is missing; None if the output is complete."""
    modality, split = source.modality, source.settings.split
    bf16_everywhere(source.config.compute, world)  # raises where it would differ, as one output needs one precision
    with world.error_barrier():
        if world.is_main:
            _check_free(source, parts, overwrite)
        embedder = source.embedder(world.device)
    index = IndexFolder(parts.path / "index", (user_cache("index"),), writes=True)
    open_splits(modality, (split,) if split else SPLITS, index, world)
    joined, missing = [False], list[Any]([None])
    with world.error_barrier():
        chain = source.chain()
        if not len(chain):
            raise DataError(f"data: there are no samples in the {split or 'data'} split")
        if world.is_main:
            continued = parts.begin(source.facts(embedder.networks, chain, world.device), anew=overwrite)
            joined[0] = parts.is_joined()
            if source.settings.window and not joined[0] and not parts.windows.exists():
                _write_windows(source, chain, parts, world)
            if continued:
                parts.remove_damaged()
    if world.size > 1:
        dist.broadcast_object_list(joined, src=0, group=world.control)
    if joined[0]:
        return None
    with world.error_barrier():
        rows = source.rows(chain, _windows(parts) if source.settings.window else None)
        size = source.batch_rows(world.device)
        if world.is_main:
            missing[0] = parts.missing(-(-len(rows) // size))
    if world.size > 1:
        dist.broadcast_object_list(missing, src=0, group=world.control)
    progress = Progress(len(rows), _rows_done(parts, size, len(rows)), world.is_main)
    return _Run(source, rows, embedder, parts, world, size, missing[0], progress)


def _check_free(source: Source, parts: PartsFolder, overwrite: bool) -> None:
    """Raise ConfigError if a file would be overwritten, unless it belongs to these parts; if one is read, always."""
    written = (parts.output, *beside(parts.output))
    read = {Path(path).resolve() for path in source.reads}
    if lost := [path for path in written if path.resolve() in read]:
        raise ConfigError(f"{lost[0]} would be replaced, but this command reads it; choose another output")
    found = [path for path in written if path.exists()]
    is_ours = parts.is_joined() or (parts.has_begun() and not parts.output.exists())
    if found and not is_ours and not overwrite:
        raise ConfigError(f"{found[0]} exists; choose another output, or add --overwrite")


@dataclass(frozen=True, eq=False)
class _Run:
    """An embedding whose missing batches are known. size: rows of a batch."""

    source: Source
    rows: Rows
    embedder: Embedder | StreamEmbedder
    parts: PartsFolder
    world: World
    size: int
    missing: NDArray[np.int64]
    progress: Progress

    def compute(self, save_every: float) -> None:
        """Compute this process's share; the main process then waits for the others."""
        config, world = self.source.config, self.world
        own = shares(self.missing, world.size)[world.rank]
        loaders = config.compute.loaders(world.device)
        Computation(
            self.rows, self.embedder, self.parts, self.size, loaders, save_every, self._check_bad, self._show
        ).compute(own)
        while world.is_main and len(self.parts.missing(-(-len(self.rows) // self.size))):
            time.sleep(_POLL)  # if another process fails, this one is ended
            self._show(0)

    def join(self) -> None:
        """Write the output and what belongs beside it, and report unreadable samples."""
        output, parts = self.parts.output, self.parts
        bad = self._list_bad()
        rows = sum(part.rows for part in parts.parts())
        if not rows:
            raise DataError(f"none of {len(self.rows):,} samples can be read; they are listed in {self._bad_list}")
        shape = self._shape(rows)
        table_rows = max(1, min(_TABLE_ROWS, _TABLE_BYTES // shape.row_bytes))
        about = self.source.about(self.embedder.networks)
        about |= {"rows": rows, "bad": bad, "vectors": shape.vectors, "dtype": shape.dtype}
        contents = (part for part in parts.contents() if len(part[1]["rows"]))
        with writing(output):
            found = write_output(
                output, shape, about, column_types(self.rows), tables(self.rows, contents, table_rows), parts.path
            )
            parts.announce(found[-1])
            for path in found:
                path.replace(output.with_name(path.name))
        if bad:
            CONSOLE.print(
                shown(f"{bad:,} of {len(self.rows):,} cannot be read and have no row; they are in {self._bad_list}")
            )

    @property
    def _bad_list(self) -> Path:
        return beside(self.parts.output)[0]

    def _shape(self, rows: int) -> Shape:
        arrays = next(arrays for _, arrays in self.parts.contents() if len(arrays["rows"]))
        vectors = {name: arrays[name].shape[1:] for name in arrays if name.startswith(VECTOR)}
        return Shape(rows, vectors, arrays[VECTOR].dtype.name)

    def _show(self, unwritten: int) -> None:
        if self.world.is_main and self.progress.is_due():
            self.progress.update(_rows_done(self.parts, self.size, len(self.rows)) + unwritten)

    def _check_bad(self, unwritten: Sequence[BadRow]) -> None:
        """Raise DataError once more rows are bad than `data.max_bad_fraction` allows."""
        limit = self.source.config.data.max_bad_fraction
        covered = _rows_done(self.parts, self.size, len(self.rows))
        count = covered - sum(part.rows for part in self.parts.parts()) + len(unwritten)
        if count <= limit * len(self.rows):
            return
        self._list_bad(unwritten)
        raise DataError(
            f"{count:,} of {len(self.rows):,} samples cannot be read, more than data.max_bad_fraction={limit} allows; "
            f"they are listed in {self._bad_list}; a higher data.max_bad_fraction leaves them out"
        )

    def _list_bad(self, unwritten: Sequence[BadRow] = ()) -> int:
        """Write the list of unreadable samples, each once -> how many rows they have."""
        found = [BadRow(*one) for facts, _ in self.parts.contents() for one in facts["bad"]]
        lines = dict.fromkeys(bad_line(one.source, one.reason) for one in [*found, *unwritten])
        with writing(self._bad_list):
            if lines:
                self._bad_list.write_bytes(b"".join(lines))
            else:
                self._bad_list.unlink(missing_ok=True)
        return len(found) + len(unwritten)


def _rows_done(parts: PartsFolder, size: int, total: int) -> int:
    """Rows of the batches in all parts, with those that cannot be read."""
    return sum(min(part.end * size, total) - part.first * size for part in parts.parts())


def _write_windows(source: Source, chain: Chain, parts: PartsFolder, world: World) -> None:
    """Read the lengths of all samples and write their windows."""
    assert isinstance(source.modality, WindowedModality)
    assert source.settings.window is not None
    assert source.stride is not None
    spans = SpanDataset(source.modality, chain, source.settings.window, source.stride)
    loaded = batches(spans, 16, source.config.compute.loaders(world.device), list)
    table = window_table([one for batch in loaded for one in batch])
    write_columns(parts.windows, {}, {"samples": table.samples, "starts": table.starts, "ends": table.ends})


def _windows(parts: PartsFolder) -> WindowTable:
    _, columns = read_columns(parts.windows)
    return WindowTable(columns["samples"], columns["starts"], columns["ends"])
