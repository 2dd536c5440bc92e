"""What a modality is made of: the config of its data, samples, what is known about them, kinds of tokens."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field
from torch import Tensor

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
