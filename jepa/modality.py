"""The contract of a modality: everything that knows pixels, frames, words or sound lives behind it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from jepa.encoder import Encoder, TokenEncoder
from jepa.masking import Masks
from jepa.model_config import ModelConfig, NetworksConfig
from jepa.positions import Grid, grid_positions

CONTRACT = 1  # its version: raised whenever a class that keeps this one would not work with the next
Split = Literal["train", "validation", "test"]
Label = int | float | Tensor


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the `data` section of every modality holds; a modality adds settings of its own in a subclass.

    source: which kind of place the data comes from, a modality names them; root: where that is, for sources that need
    it. max_bad_fraction: the share of samples that may be unreadable before a run stops. `completed` names settings
    that may be null until the modality is made, which then puts what it found into its own `config`: a run keeps that,
    and does not look for it again.
    """

    completed: ClassVar[Sequence[str]] = ()

    source: str = "folder"
    root: Path | None = None
    max_bad_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.01


@dataclass(frozen=True)
class Sample:
    """One input as it is stored, before any crop or scaling, with whatever is known about it by name."""

    inputs: Any
    labels: Mapping[str, Label] = field(default_factory=dict)


class BadSampleError(Exception):
    """Raised by a dataset, or by a view of what it gave, for a sample that cannot be read; the core skips, counts and
    lists it.

    source: what to look for, a path say; reason: what is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)  # both arguments, so that the error survives pickling between processes
        self.source, self.reason = source, reason


class Samples(Protocol):
    """A data set with random access; `samples[index]` raises BadSampleError for what cannot be read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def first_readable(samples: Samples, view: Callable[[Any], Any]) -> Any:
    """The view of the first sample of which there is one; raises the BadSampleError of the last of a hundred."""
    last = max(0, min(len(samples), 100) - 1)
    for index in range(last):
        with suppress(BadSampleError):
            return view(samples[index].inputs)
    return view(samples[last].inputs)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something known about the samples on which frozen features are measured.

    kind: `class` (integer label, by k-NN, linear probe and low-shot), `count` and `regression` (a number a sample, by
    a ridge probe), `map` (a number a token [N], by a ridge probe on token features). attentive: the numbers of blocks
    of the attentive probes that are trained for it besides, unless `evaluate.attentive` says otherwise.
    """

    label: str
    kind: Literal["class", "count", "regression", "map"]
    classes: Sequence[str] = ()
    attentive: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class Stream:
    """One of several kinds of tokens of a sample, each kind encoded by itself, all predicted from one another.

    tokens: indices of all of them [n], ascending; summary: the one among them that stands for the whole stream. parts:
    as in Masks, of a context of just these tokens.
    """

    name: str
    tokens: Tensor
    summary: int
    parts: tuple[int, ...]


C = TypeVar("C", bound=DataConfig)


class Modality(ABC, Generic[C]):
    """One kind of input: where it comes from, how it becomes tokens, which are hidden, what can be measured on it.

    A subclass says `contract = 1`, the version that it was written for, and `config_type`, its type of the `data`
    section: a frozen dataclass derived from DataConfig. `__init__` receives that section, sets `grid` (tokens along
    each axis), and raises ValueError, in one sentence, for what cannot work. Beside the abstract methods it has an
    `embedding`, or an `encoder` of its own. `streams`: the kinds of tokens, where there are several; the first tokens
    are those of the first stream and lie on `grid`, and probes look at that stream alone. `views` of every sample are
    drawn a step; the sets of masks are laid over them in turn. `forecast_axis`: the axis of the grid along which things
    go on, if there is one: evaluation then predicts its later part from its earlier one. Instances are pickled to
    worker processes. `jepa.testing.check_modality` checks all of this.
    """

    contract: ClassVar[int]
    config_type: ClassVar[type[DataConfig]]
    model_type: ClassVar[type[NetworksConfig]] = ModelConfig  # the `model` section
    streams: Sequence[Stream] = ()
    tasks: Sequence[Task] = ()
    views: int = 1
    forecast_axis: int | None = None
    grid: Grid

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    def of(cls, data: C, model: NetworksConfig) -> Self:
        """The modality of a config, for those whose tokens depend on the networks; a run keeps its `config`."""
        return cls(data)

    @property
    def positions(self) -> Tensor:
        """Coordinates of every token: [N, A]."""
        return grid_positions(self.grid)

    @abstractmethod
    def dataset(self, split: Split) -> Samples:
        """Stored samples of a split; `train` is what is pretrained on, its labels are not looked at."""

    @abstractmethod
    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """Which tokens are context and which are targets, for every sample; several sets share one target pass."""

    def embedding(self, dim: int) -> nn.Module:
        """Module (inputs, keep [B, K] or None) -> [B, K, dim] that embeds the kept tokens, see `patch_embedding`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `embedding`, or an `encoder` of its own")

    def encoder(self, config: Any) -> TokenEncoder:
        """The network whose weights are wanted, of random weights, for a `model` section; by default a transformer."""
        return Encoder(self.embedding(config.vit.width), self.positions, config)

    def training_view(self, inputs: Any, generator: Generator) -> Any:
        """What the networks see of stored inputs in training, by the generator alone: tensors without a batch axis."""
        return self.evaluation_view(inputs)

    def evaluation_view(self, inputs: Any) -> Any:
        """What the encoder sees of stored inputs in evaluation."""
        return inputs

    def evaluation_views(self, inputs: Any) -> Sequence[Any]:
        """Views over which evaluation averages, as many of every sample; labels of a token are those of the first."""
        return [self.evaluation_view(inputs)]

    def example_view(self) -> Any:
        """A view for its shape and type alone, which a modality may know without its data; by default, a real one."""
        return first_readable(self.dataset("train"), self.evaluation_view)

    def floors(self, view: Any) -> Mapping[str, Tensor]:
        """Vectors [F] of moderate length, by name, that a representation has to beat: columns of the results.

        `raw_input` is the view as it is; others tell what little of it may suffice.
        """
        return {"raw_input": torch.as_tensor(view).flatten()}

    def picture(self, view: Any) -> Tensor | None:
        """The view as people see it, the token grid lying evenly over it: uint8 [H, W, 3], of 3 axes [T, H, W, 3]."""
        return None
