"""A transformer of scikit-learn: images, videos or samples of a custom modality -> vectors of a trained encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from torch.utils.data import Dataset, default_collate

from jepa.checkpoint.file import Step
from jepa.data.given import ValueRange, stored_input
from jepa.embedding.job import Source, open_job
from jepa.embedding.settings import EmbedSettings, Pooling
from jepa.embedding.vectors import VECTOR, Embedder, StreamEmbedder
from jepa.evaluate.reading import batches
from jepa.modality import BadSampleError, Modality
from jepa.sklearn.inputs import items_of


class JepaFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Frozen features of a trained encoder: `make_pipeline(JepaFeatures("runs/demo"), LogisticRegression())`.

    source: as for `jepa.load`. pooling: `mean` or `last4`, as linear probes use them; `tokens`, all of them, flattened;
    `attentive`, by a file `probe`; `joint`, for captioned images, the vectors that sentences are compared with; `own`,
    for other families, such as a class token. batch_size: samples at once, fewer if they have many tokens. device: such
    as "cuda". value_range: of images and clips given as floats, the values of black and white. overrides: settings such
    as "data.test_clips=3", "evaluate.encoder=context_encoder" or "compute.precision=fp32". step, trust: as for
    `jepa.load`.

    X is an array with one sample per row ([n, H, W, 3], [n, 3, H, W] or [n, H, W] of images, with [n, T, ...] of
    videos, and in the shape of its samples for any other modality), or a list of paths, Pillow images or arrays, which
    may differ in size. Nothing is fitted, so `transform` works at once. The encoder is loaded when it is needed, and
    not pickled.
    """

    def __init__(
        self,
        source: Path | str,
        pooling: Pooling = "mean",
        *,
        probe: Path | str | None = None,
        batch_size: int = 64,
        device: str = "cpu",
        value_range: ValueRange = (0.0, 1.0),
        overrides: Sequence[str] = (),
        step: Step | None = None,
        trust: bool = False,
    ) -> None:
        self.source = source
        self.pooling = pooling
        self.probe = probe
        self.batch_size = batch_size
        self.device = device
        self.value_range = value_range
        self.overrides = overrides
        self.step = step
        self.trust = trust

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Load the encoder and encode the first sample, which tells the number of features."""
        items = items_of(self, X, reset=True)
        self._n_features_out = self._encoded(items[:1]).shape[1]
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Vectors [n, D] of n samples; raises ValueError for samples that do not fit or cannot be read."""
        return self._encoded(items_of(self, X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_loaded"}

    def _encoded(self, items: Sequence[Any]) -> NDArray[np.float32]:
        loaded = self._load()
        source, embedder = loaded.source, loaded.embedder
        given = _Given(source.modality, items, self.value_range)
        from_files = isinstance(items[0], str | Path)
        workers = source.config.compute.loaders(embedder.device) if from_files else 0
        parts = [
            embedder.vectors(views)[VECTOR].flatten(1)
            for views in batches(given, source.batch_rows(embedder.device), workers, _collate)
        ]
        return torch.cat(parts).numpy()

    def _load(self) -> "_Loaded":
        """The encoder, loaded again if a parameter has changed."""
        parameters = repr(sorted(self.get_params().items()))
        loaded: _Loaded | None = getattr(self, "_loaded", None)
        if loaded is None or loaded.parameters != parameters:
            layers = [*self.overrides, f"evaluate.batch_size={self.batch_size}"]
            settings = EmbedSettings(pooling=self.pooling, probe=None if self.probe is None else Path(self.probe))
            source = open_job(self.source, settings, layers, step=self.step, trust=self.trust)
            self._loaded = loaded = _Loaded(parameters, source, source.embedder(torch.device(self.device)))
        return loaded


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An encoder in memory, and the parameters that it was loaded with."""

    parameters: str
    source: Source
    embedder: Embedder | StreamEmbedder


@dataclass(frozen=True, eq=False)
class _Given(Dataset[Any]):
    """The evaluation views of each item; a BadSampleError becomes a ValueError, as no row may be missing."""

    modality: Modality[Any]
    items: Sequence[Any]
    value_range: ValueRange

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> list[Any]:
        try:
            return list(
                self.modality.evaluation_views(stored_input(self.modality, self.items[index], self.value_range))
            )
        except BadSampleError as error:
            raise ValueError(f"{error.source or f'item {index}'}: {error.reason}") from error


def _collate(items: Sequence[Any]) -> Any:
    return default_collate(list(items))
