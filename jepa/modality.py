"""The contract of a modality: everything that knows pixels, frames, words or sound lives behind it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import torch
from torch import Generator, Tensor, nn

from jepa.encoder import Encoder, TokenEncoder
from jepa.masking import Masks
from jepa.networks import ModelConfig, NetworksConfig
from jepa.positions import Grid, grid_positions

Split = Literal["train", "validation", "test"]
Label = int | float | Tensor
C = TypeVar("C")


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


class Modality(ABC, Generic[C]):
    """One kind of input: where it comes from, how it becomes tokens, which are hidden, what can be measured on it.

    Subclasses set `grid` (tokens along each axis) in `__init__`, which receives the `data` section of the config
    parsed as `config_type`, and raises ValueError, in one sentence, for what cannot work. `config_type` is a frozen
    dataclass with at least `max_bad_fraction`, the share of samples that may be unreadable before a run stops;
    `model_type` the one of the `model` section. `streams`: the kinds of tokens, where there are several; the first
    tokens are those of the first stream and lie on `grid`, and probes look at that stream alone.
    `views` of every sample are drawn a step; the sets of masks are laid over them in turn. `forecast_axis`: the
    axis of the grid along which things go on, if there is one: evaluation then predicts its later part from its earlier
    one. Instances are pickled to worker processes.
    """

    config_type: ClassVar[type]
    model_type: ClassVar[type[NetworksConfig]] = ModelConfig
    streams: Sequence[Stream] = ()
    tasks: Sequence[Task] = ()
    views: int = 1
    forecast_axis: int | None = None
    grid: Grid

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    def of(cls, data: C, model: NetworksConfig) -> Self:
        """The modality of a config, for those whose tokens depend on the networks."""
        return cls(data)

    @property
    def positions(self) -> Tensor:
        """Coordinates of every token: [N, A]."""
        return grid_positions(self.grid)

    @abstractmethod
    def dataset(self, split: Split) -> Samples:
        """Stored samples of a split; `train` is what is pretrained on, its labels are not looked at."""

    @abstractmethod
    def embedding(self, dim: int) -> nn.Module:
        """Module (inputs, keep [B, K] or None) -> [B, K, dim] that embeds the kept tokens, see `PatchEmbedding`."""

    @abstractmethod
    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """Which tokens are context and which are targets, for every sample; several sets share one target pass."""

    def encoder(self, config: Any) -> TokenEncoder:
        """The network whose weights are wanted, of random weights; by default a transformer over `embedding`.

        config: the `model` section, parsed as `model_type`.
        """
        return Encoder(self.embedding(config.vit.width), self.positions, config)

    def start(self, encoder: TokenEncoder, config: Any) -> None:
        """Give a new encoder the weights that training starts from, where the `model` section names some.

        Raises ValueError.
        """

    def training_view(self, inputs: Any, generator: Generator) -> Any:
        """What the networks see of stored inputs in training, by the generator alone: tensors without a batch axis."""
        return self.evaluation_view(inputs)

    def evaluation_view(self, inputs: Any) -> Any:
        """What the encoder sees of stored inputs in evaluation."""
        return inputs

    def example_view(self) -> Any:
        """A view for its shape and type alone, which a modality may know without its data; by default, a real one."""
        return self.evaluation_view(self.dataset("train")[0].inputs)

    def evaluation_views(self, inputs: Any) -> Sequence[Any]:
        """Views over which evaluation averages, as many of every sample; the first one alone teaches what looks at one.

        Labels of a token, of tasks of kind `map`, are those of the first view.
        """
        return [self.evaluation_view(inputs)]

    def raw_features(self, view: Any) -> Tensor:
        """The view as a plain vector [F] of moderate length: the floor that a representation has to beat."""
        return torch.as_tensor(view).flatten()

    def floors(self, view: Any) -> Mapping[str, Tensor]:
        """Vectors, by name, that a representation has to beat: columns of the table of results, `raw_input` the first.

        Others tell what little of the input may suffice; a modality adds them to these. Names: as in results.json.
        """
        return {"raw_input": self.raw_features(view)}

    def picture(self, view: Any) -> Tensor | None:
        """The view as people see it, the token grid lying evenly over it; None where there is none.

        uint8 [H, W, 3]; of a grid with 3 axes, the first of which goes on, uint8 [T, H, W, 3].
        """
        return None
