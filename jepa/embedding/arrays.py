"""`jepa.embed`: the vectors of a small data set as arrays."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from jepa.config import Tree
from jepa.data import DataError
from jepa.embedding.job import open_job
from jepa.embedding.rows import RowDataset, collate_rows
from jepa.embedding.settings import DType, EmbedSettings, Pooling
from jepa.embedding.tables import row_table
from jepa.embedding.vectors import VECTOR
from jepa.evaluate.reading import batches
from jepa.modality import Split


class Embedded(NamedTuple):
    """Vectors [n, D], or [n, N, D] for all tokens; columns: `name`, `label` and more, as in the files of `jepa embed`.

    bad: name and reason of samples that cannot be read, which have no row.
    """

    vectors: NDArray[Any]
    columns: dict[str, Any]
    bad: list[tuple[str, str]]


def embed(
    source: Path | str,
    data: Path | str | None = None,
    *,
    pooling: Pooling | None = None,
    dtype: DType = "float32",
    split: Split | None = None,
    stream: str | None = None,
    probe: Path | str | None = None,
    overrides: Sequence[Tree | str] = (),
    modality: str | None = None,
    trust: bool = False,
) -> Embedded:
    """Vectors of all samples of a data set that fits into memory; `jepa embed` explains the settings.

    Raises ConfigError, CheckpointError, and DataError if more samples than `data.max_bad_fraction` cannot be read.
    """
    settings = EmbedSettings(
        pooling=pooling, dtype=dtype, split=split, stream=stream, probe=None if probe is None else Path(probe)
    )
    root: Sequence[Tree | str] = [] if data is None else [{"data": {"root": str(data)}}]
    job = open_job(source, settings, [*root, *overrides], modality=modality, trust=trust)
    cuda = torch.cuda.is_available() and job.config.compute.device != "cpu"
    device = torch.device("cuda" if cuda else "cpu")
    embedder, size = job.embedder(device), job.batch_rows(device)
    rows = job.rows(job.chain())
    dataset = RowDataset(rows, array("q", range(len(rows))))
    loaded = list[Any]()
    for batch in batches(dataset, size, job.config.compute.loaders(device), collate_rows):
        loaded.append((batch._replace(views=[]), embedder.vectors(batch.views) if batch.rows else {}))
    bad = [(one.source, one.reason) for batch, _ in loaded for one in batch.bad]
    found = [(batch, vectors) for batch, vectors in loaded if batch.rows]
    if not found:
        example = "".join(f", such as {source}: {reason}" for source, reason in bad[:1])
        raise DataError(f"none of {len(rows):,} samples can be read{example}")
    if len(bad) > (limit := job.config.data.max_bad_fraction) * len(rows):
        raise DataError(
            f"{len(bad):,} of {len(rows):,} samples cannot be read, more than data.max_bad_fraction={limit} allows; "
            f"one is {bad[0][0]}: {bad[0][1]}"
        )
    arrays = {name: torch.cat([vectors[name] for _, vectors in found]).numpy() for name in found[0][1]}
    arrays["rows"] = np.array([row for batch, _ in found for row in batch.rows], np.int64)
    arrays["labels"] = torch.cat([batch.labels for batch, _ in found]).numpy()
    table = row_table(rows, [text for batch, _ in found for text in batch.texts], arrays)
    others = {name: values for name, values in table.vectors.items() if name != VECTOR}
    return Embedded(table.vectors[VECTOR], {**table.facts, **others}, bad)
