"""The contract of a modality: everything that knows pixels, frames, words or sound lives behind it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Generator, Tensor, nn

from jepa.encoder import Encoder, TokenEncoder
from jepa.masking import Masks
from jepa.networks import ModelConfig, NetworksConfig
from jepa.positions import Grid, grid_positions
from jepa.samples import BadSampleError, DataConfig, Sample, Samples, Split, Stream, Task, first_readable

__all__ = ["CONTRACT", "BadSampleError", "DataConfig", "Modality", "Sample", "Samples", "Split", "Stream", "Task"]
CONTRACT = 1  # its version: raised whenever a class that keeps this one would not work with the next
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
