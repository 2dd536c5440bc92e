"""A source and a data set, opened for embedding."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepa.checkpoint.file import Step
from jepa.config import ConfigError, Tree, plain
from jepa.config.effects import Use, check_effects
from jepa.config.overrides import as_texts, as_tree
from jepa.embedding.rows import Chain, Rows, WindowTable
from jepa.embedding.settings import EmbedSettings, Extent, Pooling
from jepa.embedding.vectors import VECTOR, Embedder, PooledByProbe, StreamEmbedder
from jepa.embedding.windows import WindowedModality
from jepa.evaluate.cross_modal.vectors import StreamEncoder
from jepa.evaluate.features import samples_at_once
from jepa.matching import MatchedModality
from jepa.modality import Modality, Task
from jepa.probe.saved import SavedProbe
from jepa.training.config import Config
from jepa.weights.families.encoder import FamilyEncoder
from jepa.weights.load import model_of
from jepa.weights.opened import Opened, open_source

_FREE = ("data", "evaluate", "compute")  # sections that an embedding may override


@dataclass(frozen=True, eq=False)
class Source:
    """A trained encoder and its modality, on the data that the overrides name."""

    opened: Opened
    settings: EmbedSettings
    overrides: Sequence[Tree | str] = ()

    @property
    def config(self) -> Config[Any, Any]:
        """The config of the source, with the overrides."""
        return self.opened.config

    @property
    def modality(self) -> Modality[Any]:
        """The modality, on the data of the overrides."""
        return self.opened.modality

    @property
    def step(self) -> int | None:
        """Steps that the encoder was trained for, as far as they are known."""
        return None if self.opened.checkpoint is None else self.opened.checkpoint.step

    @property
    def pooling(self) -> Pooling:
        """The pooling of the settings, or the modality's own."""
        return self.settings.pooling or ("joint" if isinstance(self.modality, MatchedModality) else "mean")

    @property
    def stride(self) -> Extent | None:
        """The distance of windows: by default their length."""
        return self.settings.stride or self.settings.window

    @property
    def tasks(self) -> Sequence[Task]:
        """Tasks whose labels are numbers or classes of a sample."""
        return [task for task in self.modality.tasks if task.kind != "map"]

    def chain(self) -> Chain:
        """The samples; raises DataError."""
        return Chain.of(self.modality, self.settings.split)

    def rows(self, chain: Chain, windows: WindowTable | None = None) -> Rows:
        """The rows of these samples."""
        streams = self._columns().values() if self.pooling == "joint" else ()
        return Rows(self.modality, chain, self.tasks, windows, needs_text=1 in streams)

    def embedder(self, device: torch.device) -> Embedder | StreamEmbedder:
        """The networks on a device."""
        config, modality, which = self.config, self.modality, self.config.evaluated_encoder
        bf16, float16 = config.compute.uses_bf16(device.type), self.settings.dtype == "float16"
        if self.pooling == "joint":
            assert isinstance(modality, MatchedModality)
            assert self.opened.checkpoint is not None
            model = model_of(self.opened.checkpoint, config, modality).to(device)
            return StreamEmbedder(StreamEncoder(model, modality, which, bf16), self._columns(), float16)
        try:
            encoder = self.opened.token_encoder(which)
        except RuntimeError as error:
            raise ConfigError(
                f"the encoder of {self.opened.source} does not fit this data section: {str(error).splitlines()[-1]}"
            ) from error
        if self.pooling == "own" and not (isinstance(encoder, FamilyEncoder) and encoder.pooling):
            raise ConfigError(f"pooling: {self.opened.source} has no pooling of its own beside the mean of its tokens")
        probe = self._probe(encoder.dim).to(device) if self.settings.probe else None
        return Embedder(modality, encoder.to(device), self.pooling, bf16, float16, probe)

    def batch_rows(self, device: torch.device) -> int:
        """Rows of a batch, whose tokens fit into memory."""
        return samples_at_once(self.modality, self.config.evaluate.batch_size, on_gpu=device.type == "cuda")

    def facts(self, networks: nn.Module, chain: Chain, device: torch.device) -> Tree:
        """Everything that decides what the output holds; parts of other facts do not fit together."""
        data = {key: value for key, value in plain(self.config.data).items() if key not in _without(self.modality)}
        compute = {"precision": self.config.compute.precision_on(device.type), "device": device.type}
        options: Tree = {"pooling": self.pooling, "dtype": self.settings.dtype, "split": self.settings.split or "all"}
        options |= {"stream": self.settings.stream, "probe": self.settings.probe and str(self.settings.probe)}
        windows = {"window": str(self.settings.window), "stride": str(self.stride)} if self.settings.window else {}
        return {
            "source": {"step": self.step, "weights": weights_digest(networks)},
            "data": data,
            "samples": chain.digests(),
            **options,
            **windows,
            "compute": {**compute, "rows_at_once": self.batch_rows(device)},
        }

    def about(self, networks: nn.Module) -> Tree:
        """Metadata of the output, apart from the sizes of its vectors."""
        data, settings = self.config.data, self.settings
        windows = {"window": str(settings.window), "stride": str(self.stride)} if settings.window else {}
        return {
            "source": self.opened.source,
            "step": self.step,
            "weights": weights_digest(networks),
            "encoder": self.config.evaluated_encoder,
            "modality": self.config.modality,
            "data": {"source": data.source, "root": None if data.root is None else str(data.root)},
            "overrides": as_texts(self.overrides),
            "split": settings.split or "all",
            "pooling": self.pooling,
            **({"probe": str(settings.probe)} if settings.probe else {}),
            **windows,
            "version": _version(),
        }

    @property
    def reads(self) -> list[str]:
        """Paths that the source and its settings name, besides other words."""
        return [self.opened.source, str(self.settings.probe), *_texts(plain(self.config.data))]

    def _probe(self, dim: int) -> PooledByProbe:
        """The attentive probe of the settings; raises CheckpointError, and ConfigError for another width or grid."""
        assert self.settings.probe is not None
        saved = SavedProbe.load(self.settings.probe)
        width = len(saved.weights["query"])
        if width != dim:
            raise ConfigError(
                f"{self.settings.probe} pools tokens of width {width}; those of {self.opened.source} have {dim}"
            )
        try:
            saved.check_grid(self.modality.grid)
        except ConfigError as error:
            raise ConfigError(f"{self.settings.probe}: {error}, of {self.opened.source}") from error
        return PooledByProbe(saved)

    def _columns(self) -> dict[str, int]:
        """The stream of each column of vectors."""
        names = [stream.name for stream in self.modality.streams]
        if self.settings.stream is not None:
            return {VECTOR: names.index(self.settings.stream)}
        return {VECTOR: 0, f"{VECTOR}_{names[1]}": 1}


def open_job(
    source: Path | str,
    settings: EmbedSettings,
    layers: Sequence[Tree | str] = (),
    *,
    modality: str | None = None,
    step: Step | None = None,
    trust: bool = False,
) -> Source:
    """Open a source on the data of the overrides; raises ConfigError for settings that do not fit together."""
    opened = open_source(source, layers, modality=modality, step=step, trust=trust)
    changes = as_tree(layers, Config.of(type(opened.modality)))
    if fixed := [section for section in changes if section not in _FREE]:
        raise ConfigError(f"an embedding cannot change {fixed[0]}; it can change {', '.join(_FREE)}")
    check_effects(Use(opened.config, opened.modality, evaluates=True, set_by_user=changes), changes)
    found = Source(opened, settings, layers)
    _check(found)
    return found


def _check(source: Source) -> None:
    """Raise ConfigError for settings that the modality does not allow."""
    settings, modality, kind = source.settings, source.modality, source.config.modality
    if settings.window and not isinstance(modality, WindowedModality):
        raise ConfigError(f"window: the samples of modality {kind} have no windows; videos have")
    if source.pooling == "joint" and not isinstance(modality, MatchedModality):
        raise ConfigError(f"pooling: joint needs two matching streams, which modality {kind} does not have")
    names = [stream.name for stream in modality.streams]
    if settings.stream is not None and source.pooling != "joint":
        raise ConfigError("stream: needs pooling=joint; other poolings embed the first stream")
    if settings.stream is not None and settings.stream not in names:
        raise ConfigError(f"stream: '{settings.stream}' is not one of {', '.join(names)}")


def weights_digest(networks: nn.Module) -> str:
    """A digest of up to 1,024 values of every weight, spread evenly: any training changes it."""
    digest = blake2b(digest_size=8)
    for name, value in networks.state_dict().items():
        values = value.detach().flatten()[:: max(1, value.numel() // 1024)]
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(values.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


def _without(modality: Modality[Any]) -> set[str]:
    """Settings of the data that change no vector."""
    return {"max_bad_fraction", *modality.config.training_only}


def _texts(value: Any) -> Iterator[str]:
    """All texts in a tree."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _version() -> str:
    try:
        return f"openjepa {version('openjepa')}"
    except PackageNotFoundError:
        return "openjepa"
