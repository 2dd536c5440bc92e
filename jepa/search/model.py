"""The model that made a file of vectors, applied to queries: vectors of files and sentences, and thumbnails of rows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from jepa.checkpoint.file import CheckpointError
from jepa.config import ConfigError
from jepa.data import DataError
from jepa.data.given import AcceptsGiven, AcceptsSentences, stored_input
from jepa.embedding.job import Source, open_job, weights_digest
from jepa.embedding.settings import EmbedSettings
from jepa.embedding.vectors import VECTOR, Embedder, StreamEmbedder
from jepa.embedding.windows import WindowedModality
from jepa.modality import BadSampleError, Sample
from jepa.search.nearest import Floats
from jepa.search.stored import Facts, VectorFile


@dataclass(frozen=True, eq=False)
class QueryModel:
    """The encoder and the modality of a file of vectors."""

    source: Source
    embedder: Embedder | StreamEmbedder

    @classmethod
    def of(cls, vectors: VectorFile, source: str | None, device: str, trust: bool) -> "QueryModel":
        """The model that a file of vectors names, or that model at its new place; raises ConfigError."""
        about = vectors.about
        if source is None and "source" not in about:
            raise ConfigError(f"{vectors.path} does not say which model made it; name the model with --source")
        name, probe = source or about["source"], about.get("probe")
        settings = EmbedSettings(pooling=about.get("pooling"), probe=Path(probe) if probe else None)
        try:
            opened = open_job(name, settings, _layers(about), modality=about.get("modality"), trust=trust)
        except CheckpointError as error:
            hint = "" if source else f"; it made the vectors of {vectors.path}; if it has moved, name it with --source"
            raise ConfigError(f"{error}{hint}") from error
        embedder = opened.embedder(torch.device(device))
        if "weights" in about and about["weights"] != weights_digest(embedder.networks):
            step = "" if about.get("step") is None else f" at step {about['step']}"
            raise ConfigError(
                f"{vectors.path} was made with {about.get('source')}{step}; {name} has other weights, and vectors of "
                "different networks do not compare: give the network of the file as --source, or run `jepa embed` again"
            )
        return cls(opened, embedder)

    @property
    def has_text(self) -> bool:
        """Whether sentences have vectors that compare with those of the file."""
        return isinstance(self.embedder, StreamEmbedder) and isinstance(self.source.modality, AcceptsSentences)

    @property
    def reads_files(self) -> bool:
        """Whether the modality reads files that are not in its data set."""
        return isinstance(self.source.modality, AcceptsGiven)

    def of_file(self, path: Path) -> Floats:
        """The vector [D] of a file; raises BadSampleError, and ValueError for a modality that reads no files."""
        return self._vector(self.source.modality.evaluation_views(stored_input(self.source.modality, path)), VECTOR)

    def of_sentence(self, sentence: str) -> Floats:
        """The vector [D] of a sentence."""
        modality = self.source.modality
        assert isinstance(modality, AcceptsSentences)
        return self._vector([modality.sentence_view(sentence)], f"{VECTOR}_{modality.streams[1].name}")

    def picture_of(self, query: str) -> Tensor | None:
        """The picture of a file, as the network sees it; None if the modality has none."""
        modality = self.source.modality
        return modality.picture(modality.evaluation_view(stored_input(modality, Path(query))))

    def pictures(self, rows: Mapping[int, Facts]) -> tuple[dict[int, Tensor], list[str]]:
        """Pictures of rows, as far as the modality has any, and why others cannot be read."""
        found: dict[int, Tensor] = {}
        reasons: list[str] = []
        try:
            stored = self._stored({str(facts["name"]) for facts in rows.values() if not self._is_file(facts)})
        except (DataError, ConfigError) as error:
            stored, reasons = {}, [str(error)]
        for row, facts in rows.items():
            try:
                picture = self._picture(facts, stored)
            except BadSampleError as error:
                reasons.append(f"{error.source}: {error.reason}")
            else:
                found |= {} if picture is None else {row: picture}
        return found, reasons

    def _picture(self, facts: Facts, stored: Mapping[str, Callable[[], Sample]]) -> Tensor | None:
        modality, name = self.source.modality, str(facts["name"])
        if name in stored:
            inputs = stored[name]().inputs
        elif self._is_file(facts):
            try:
                inputs = stored_input(modality, Path(name))
            except ValueError as error:  # of a modality that accepts only arrays
                raise BadSampleError(name, str(error)) from error
        else:
            raise BadSampleError(name, "no such file or sample" if self.reads_files else "no such sample in the data")
        if facts.get("start") is None or not isinstance(modality, WindowedModality):
            return modality.picture(modality.evaluation_view(inputs))
        return modality.picture(modality.window_view(inputs, float(facts["start"]), float(facts["end"])))

    def _stored(self, names: Collection[str]) -> dict[str, Callable[[], Sample]]:
        """What reads the samples of the data with these names, such as members of tar files."""
        if not names:
            return {}
        chain = self.source.chain()
        found = {name: index for index in range(len(chain)) if (name := written(chain.name(index))) in names}
        return {name: partial(chain.__getitem__, index) for name, index in found.items()}

    def _is_file(self, facts: Facts) -> bool:
        return self.reads_files and Path(str(facts["name"])).exists()

    def _vector(self, views: Sequence[Any], column: str) -> Floats:
        batch = [default_collate([view]) for view in views]
        vector: Floats = self.embedder.vectors(batch)[column][0].numpy().astype(np.float32)
        return vector


def _layers(about: Facts) -> list[str]:
    """The settings with which the vectors were made, without data that is no longer there."""
    root = about.get("data", {}).get("root")
    gone = ("data.root=", "data.source=") if root and not Path(root).exists() else ()
    return [text for text in about.get("overrides", ()) if not text.startswith(gone)]


def written(name: str) -> str:
    """A name as files hold it: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()
