"""The contract of a modality: the interface between the core and code for pixels, frames, words or sound."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from jepa.compat.contract_1 import Renamed
from jepa.config.effects import Use
from jepa.disk.columns import IndexFolder
from jepa.encoder import Encoder, TokenEncoder
from jepa.masking import MaskGroups, Masks
from jepa.model_config import ModelConfig, NetworksConfig
from jepa.positions import Grid, grid_positions

CONTRACT = 1  # version of the contract, raised when classes written for it would stop working
Split = Literal["train", "validation", "test"]
Label = int | float | Tensor


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Base class of the `data` section; a modality adds its own settings in a subclass.

    source: kind of data source, as named by the modality. root: folder or file of the source, if it needs one.
    max_bad_fraction: share of samples that may be unreadable before a run stops. position_grid: a grid of tokens to
    whose extent positions are scaled; null for none. A modality sets null settings in `completed` when it is created.
    """

    completed: ClassVar[Sequence[str]] = ()
    world: ClassVar[str] = ""  # the generated data that a null `source` means without a `root`, and its section
    training_only: ClassVar[Sequence[str]] = ()  # settings that an evaluation does not use
    may_change: ClassVar[Sequence[str]] = ("max_bad_fraction",)  # settings that a resumed run may have changed
    of_networks: ClassVar[Sequence[str]] = ()  # settings that `start_from` takes over with the networks

    source: str | None = "folder"
    root: Path | None = None
    max_bad_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.01
    position_grid: tuple[PositiveInt, ...] | None = None

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, with the reason (see `jepa.config.effects`); subclasses add theirs."""
        found = dict.fromkeys(self.training_only if use.evaluates else (), "only training uses it")
        if self.world and self.source == self.world:
            return {**found, "root": f"data.source={self.source} is generated and reads no files"}
        return {**found, self.world: f"data.source={self.source} reads files"} if self.world else found


@dataclass(frozen=True)
class Sample:
    """One input as stored, before any crop or scaling, and its labels by name."""

    inputs: Any
    labels: Mapping[str, Label] = field(default_factory=dict)


class BadSampleError(Exception):
    """A sample cannot be read. A dataset or a view raises it; the core then replaces, counts and lists the sample.

    source: the sample's path or another name, or nothing in a view that does not know it. reason: what is wrong.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)  # both, so that the error can be pickled
        self.source, self.reason = source, reason


class Samples(Protocol):
    """A data set with random access; `samples[index]` raises BadSampleError if the sample cannot be read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@runtime_checkable
class LabelledSamples(Samples, Protocol):
    """A data set that tells labels without reading inputs, so that all labels can be checked before a run starts."""

    def labels_of(self, index: int, /) -> Mapping[str, Label]: ...


def first_readable(samples: Samples, view: Callable[[Any], Any]) -> Any:
    """A view of the first readable sample among the first hundred; raises BadSampleError if there is none."""
    last = max(0, min(len(samples), 100) - 1)
    for index in range(last):
        with suppress(BadSampleError):
            return view(samples[index].inputs)
    return view(samples[last].inputs)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A label of the samples on which frozen features are evaluated.

    kind: `class` (an integer, below 0 if unknown; k-NN, linear probe, low-shot), `count` and `regression` (one number a
    sample; ridge probe), `map` (one number per token [N]; ridge probe on token features). attentive: depths of
    additional attentive probes, unless `evaluate.attentive` sets them.
    """

    label: str
    kind: Literal["class", "count", "regression", "map"]
    classes: Sequence[str] = ()
    attentive: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class Stream:
    """One of several kinds of tokens in a sample; each is encoded separately and predicted from the others.

    tokens: indices of the stream's tokens [n], ascending. summary: index of its pooled (CLS-like) token. parts:
    `Masks.parts` of a context of this stream alone.
    """

    name: str
    tokens: Tensor
    summary: int
    parts: tuple[int, ...]


C = TypeVar("C", bound=DataConfig)


class Modality(Renamed, ABC, Generic[C]):
    """One kind of input: its data sets, tokens, masks, views and evaluation tasks.

    A subclass sets `contract = 1`, the version that it was written for, and `config_type`, the frozen dataclass derived
    from DataConfig that is its `data` section. `__init__` receives that section, sets `grid` (tokens along each axis),
    and raises ValueError with one sentence if the settings do not fit together. A subclass implements the abstract
    methods and either `embedding` or `encoder`. Instances are pickled to worker processes.
    `jepa.testing.check_modality` checks the whole contract.

    streams: kinds of tokens, if there are several; the tokens of the first stream come first and lie on `grid`, and
    probes use that stream alone. views: crops per sample and step; mask set i applies to view i mod views. local_views:
    smaller views per sample and step, on `local_grid`, for the target `views`; `local_view` draws one.
    forecast_axis: index of the grid's time axis, if any; evaluation then predicts later tokens from earlier ones.
    mask_groups: how `sample_masks` may draw parts of a batch, see jepa/masking/groups.py; None: whole batches only.
    index_folder: set by the core: where `dataset` may store the list of its samples for other processes and later
    starts.
    """

    former_names: ClassVar[Mapping[str, str]] = {"floors": "baselines"}
    contract: ClassVar[int]
    config_type: ClassVar[type[DataConfig]]
    model_type: ClassVar[type[NetworksConfig]] = ModelConfig  # the `model` section
    streams: Sequence[Stream] = ()
    tasks: Sequence[Task] = ()
    views: int = 1
    local_views: int = 0
    local_grid: Grid = ()
    forecast_axis: int | None = None
    mask_groups: MaskGroups | None = None
    index_folder: IndexFolder | None = None
    grid: Grid

    def __init__(self, config: C) -> None:
        self.config = config

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        owners = [next(one for one in cls.__mro__ if name in vars(one)) for name in ("training_view", "loader_view")]
        if cls.__mro__.index(owners[0]) < cls.__mro__.index(owners[1]):  # only the former is overridden, so it counts
            cls.loader_view = Modality.loader_view  # type: ignore[method-assign]
            cls.example_loader_view = Modality.example_loader_view  # type: ignore[method-assign]

    @classmethod
    def of(cls, data: C, model: NetworksConfig) -> Self:
        """Create the modality of a config; override it if the tokens depend on the `model` section."""
        return cls(data)

    @property
    def positions(self) -> Tensor:
        """Coordinates of every token: [N, A]."""
        return grid_positions(self.grid, getattr(self.config, "position_grid", None))  # a broken one has none

    @property
    def local_positions(self) -> Tensor:
        """Coordinates of every token of a smaller view, scaled to the extent of the whole grid: [N, A]."""
        return grid_positions(self.local_grid, self.config.position_grid or self.grid)

    @abstractmethod
    def dataset(self, split: Split) -> Samples:
        """Stored samples of a split; pretraining uses `train` and ignores its labels."""

    def data_warnings(self) -> Sequence[str]:
        """Warnings about the stored values of training samples; a run prints them as it starts, so read only a few."""
        return ()

    @abstractmethod
    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """Draw one or several sets of masks for a batch; all sets of a view share one target pass."""

    def embedding(self, dim: int) -> nn.Module:
        """Module (inputs, keep [B, K] or None) -> [B, N or K, dim] that embeds tokens; see `patch_embedding`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `embedding` or `encoder`")

    def encoder(self, config: Any) -> TokenEncoder:
        """The encoder with random weights, from the `model` section; by default a vision transformer."""
        return Encoder(self.embedding(config.vit.width), self.positions, config)

    def training_view(self, inputs: Any, generator: Generator) -> Any:
        """A training view of stored inputs: tensors without a batch axis; all randomness comes from the generator."""
        return self.evaluation_view(inputs)

    def loader_view(self, inputs: Any, generator: Generator) -> Any:
        """A training view as workers send it, such as uint8 pixels, which `to_network` completes for a batch."""
        return self.training_view(inputs, generator)

    def local_view(self, inputs: Any, generator: Generator) -> Any:
        """A smaller training view as workers send it; override it if there are `local_views`."""
        raise NotImplementedError(f"{type(self).__name__} has no smaller views")

    def example_local_view(self) -> Any:
        """A smaller view whose shapes and types are representative; override it together with `local_view`."""
        raise NotImplementedError(f"{type(self).__name__} has no smaller views")

    def to_network(self, views: Any) -> Any:
        """A batch of loader views, on its device -> training views; a batch of training views stays as it is."""
        return views

    def evaluation_view(self, inputs: Any) -> Any:
        """The evaluation view of stored inputs."""
        return inputs

    def evaluation_views(self, inputs: Any) -> Sequence[Any]:
        """Views that evaluation averages over, the same number for each sample; token labels belong to the first."""
        return [self.evaluation_view(inputs)]

    def example_view(self) -> Any:
        """A view whose shapes and types are representative; by default that of a real sample."""
        return first_readable(self.dataset("train"), self.evaluation_view)

    def example_loader_view(self) -> Any:
        """A loader view whose shapes and types are representative; override it together with `loader_view`."""
        return self.example_view()

    def baselines(self, view: Any) -> Mapping[str, Tensor]:
        """Baseline feature vectors [F] of a view, by name; each is a column of the results. `raw_input` is the view."""
        return {"raw_input": torch.as_tensor(view).flatten()}

    def picture(self, view: Any) -> Tensor | None:
        """A picture of the view that its token grid divides evenly: uint8 [H, W, 3], or [T, H, W, 3] for three axes."""
        return None
