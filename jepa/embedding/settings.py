"""What `jepa embed` computes of each sample."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from jepa.config import ConfigError
from jepa.modality import Split

Pooling = Literal["mean", "last4", "tokens", "attentive", "joint", "own"]
DType = Literal["float32", "float16"]
POOLINGS, DTYPES = get_args(Pooling), get_args(DType)
SPLITS: tuple[Split, ...] = get_args(Split)
_EXTENT = re.compile(r"(\d+(?:\.\d+)?)([sf])")


class Extent(NamedTuple):
    """A length of time, in seconds (`s`) or frames (`f`)."""

    length: float
    unit: str

    @classmethod
    def parse(cls, text: str, option: str) -> "Extent":
        """`2.5s` or `64f` -> the extent; raises ConfigError that names the option."""
        found = _EXTENT.fullmatch(text)
        if not found or not float(found[1]):
            raise ConfigError(f"{option} {text}: give seconds, such as 2.5s, or frames, such as 64f, above 0")
        if found[2] == "f" and not float(found[1]).is_integer():
            raise ConfigError(f"{option} {text}: a number of frames is whole")
        return cls(float(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.length:g}{self.unit}"


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """What is computed of each sample.

    pooling: `mean` of the tokens of the last layer; `last4`: means of the last four layers, layer-normed and joined, as
    linear probes use them; `tokens`: all tokens of the last layer; `attentive`: what an attentive probe pools, which
    needs `probe`; `joint`: unit vectors of two matching streams, whose inner products compare them; `own`: what an
    encoder of another family pools itself, such as its class token. None means `joint` where the modality has matching
    streams, and else `mean`. split: None for all samples of the data. stream: of two matching streams, the one to
    embed; None for both. window, stride: windows that slide along videos.
    """

    pooling: Pooling | None = None
    dtype: DType = "float32"
    split: Split | None = None
    stream: str | None = None
    window: Extent | None = None
    stride: Extent | None = None
    probe: Path | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("pooling", (None, *POOLINGS)), ("dtype", DTYPES), ("split", (None, *SPLITS))):
            if getattr(self, name) not in allowed:
                choices = ", ".join(str(one) for one in allowed if one)
                raise ConfigError(f"{name}: '{getattr(self, name)}' is not one of {choices}")
        if self.stride and not self.window:
            raise ConfigError("stride: needs a window, as it is the distance between two of them")
        if self.stride and self.window and self.stride.unit != self.window.unit:
            raise ConfigError(f"stride {self.stride}: give it in the unit of the window {self.window}")
        if (self.pooling == "attentive") != (self.probe is not None):
            raise ConfigError("attentive pooling and a probe need each other: give both, or neither")
