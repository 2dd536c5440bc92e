"""The contract of a modality with two matching streams, in addition to that of any modality."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Generator, nn

from jepa.masking import Masks
from jepa.modality import C, Modality, Task
from jepa.model import JEPA


class MatchedModality(Modality[C]):
    """Samples with two matching streams; evaluation measures whether the representation of one retrieves the other.

    Subclasses set `streams` to two streams. Views hold both streams; where only one is needed, the other is ignored.
    """

    former_names: ClassVar[Mapping[str, str]] = {
        **Modality.former_names,
        "said": "descriptions",
        "served": "inference_model",
    }

    @abstractmethod
    def matches(self, inputs: Any) -> Sequence[Any]:
        """Evaluation views of a sample: its first stream with each second stream that matches it."""

    def near_misses(self, inputs: Any) -> Mapping[str, tuple[Any, Any]]:
        """By kind, two views of one first stream: with a second stream that matches, and with one that almost does."""
        return {}

    def prompts(self, task: Task) -> Iterator[Sequence[Any]]:
        """For each class of a task, in order, views whose second stream names it; empty if it has no name."""
        return iter(())

    @abstractmethod
    def descriptions(self, inputs: Any) -> Sequence[str]:
        """Readable forms of the second streams of `matches`; equal descriptions count as the same stream."""

    def gain_masks(self, batch_size: int, generator: Generator) -> tuple[Masks, Masks] | None:
        """Masks that hide tokens of the first stream, with the whole second stream in the context and without it.

        Targets and first-stream context are equal in both. None if the run does not train on both.
        """
        return None

    @abstractmethod
    def inference_model(self, model: JEPA, encoder: Literal["target_encoder", "context_encoder"]) -> nn.Module:
        """The module that `jepa.load` returns: all networks, applied to inputs as users have them.

        encoder: whose vectors are compared if a contrast has aligned the streams.
        """
