"""The contract of a modality of two streams that tell of the same thing, on top of that of any modality."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Generator, nn

from jepa.masking import Masks
from jepa.modality import C, Modality, Task
from jepa.model import JEPA


class MatchedModality(Modality[C]):
    """Samples whose two streams match: what evaluation needs to ask whether a representation of one finds the other.

    Subclasses set `streams` to two of them. Views hold both streams; where one is asked for, the other is not looked
    at.
    """

    @abstractmethod
    def matches(self, inputs: Any) -> Sequence[Any]:
        """Evaluation views with the one first stream of a sample, one for every second stream that matches it."""

    def near_misses(self, inputs: Any) -> Mapping[str, tuple[Any, Any]]:
        """By kind, two views with the first stream of `matches`: the second stream of one matches it, that of the other
        does not, but nearly.
        """
        return {}

    def prompts(self, task: Task) -> Iterator[Sequence[Any]]:
        """For each class of a task, in order, views whose second stream names it; none where it has no name."""
        return iter(())

    @abstractmethod
    def said(self, inputs: Any) -> Sequence[str]:
        """What the second streams of `matches` say, for people; those that say the same are taken for one."""

    def gain_masks(self, batch_size: int, generator: Generator) -> tuple[Masks, Masks] | None:
        """Masks that hide tokens of the first stream, with all of the second one in the context and without it.

        Targets and the context tokens of the first stream are the same in both. None where the run does not learn
        both, so that a comparison would tell nothing.
        """
        return None

    @abstractmethod
    def served(self, model: JEPA, encoder: Literal["target_encoder", "context_encoder"]) -> nn.Module:
        """What is given to people who load a run: all its networks, to be asked about inputs as people have them.

        encoder: whose vectors are compared where a contrast has brought the streams together.
        """
