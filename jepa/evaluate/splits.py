"""The training, validation and test split of anything: samples, features, labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


@dataclass(frozen=True)
class Examples:
    """Features [n, F], for attentive probes tokens [n, V, M, D]; labels int64 [n] classes, or float [n] numbers."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> "Examples":
        return Examples(self.features[rows], self.labels[rows])

    def projected(self, axes: Tensor) -> "Examples":
        """The same examples with features projected onto axes [F, G]."""
        return Examples(self.features @ axes, self.labels)


@dataclass(frozen=True)
class Splits(Generic[T]):
    """One value per split."""

    train: T
    validation: T
    test: T

    def map(self, function: Callable[[T], U]) -> "Splits[U]":
        """Apply a function to each split."""
        return Splits(*map(function, self.parts()))

    def parts(self) -> tuple[T, T, T]:
        """Train, validation and test as a tuple."""
        return self.train, self.validation, self.test

    def pair(self, function: Callable[[T, V], U], others: "Splits[V]") -> "Splits[U]":
        """Apply a function of two arguments to each split of both."""
        return Splits(*map(function, self.parts(), others.parts()))
