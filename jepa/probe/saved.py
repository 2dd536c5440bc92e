"""A trained attentive probe as a file."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.checkpoint import CheckpointError
from jepa.checkpoint.file import read_content
from jepa.config import ConfigError
from jepa.disk import replacing
from jepa.probe.averages import averaged, averages
from jepa.probe.missing import without_nan
from jepa.probe.network import AttentiveProbe

FORMAT = "jepa attentive probe 1"


@dataclass(frozen=True)
class SavedProbe:
    """An attentive probe and how to use it.

    classes: names of the outputs; none for a number, which is output * scale + centre. normed: whether its blocks need
    tokens that are layer-normed first, as those of an evaluation with `evaluate.attentive_norm` do; the published
    probes take the tokens of the encoder. grid, averaged: of the encoder's tokens in training, and the grid to which
    they were averaged first, which is the same if they were not; empty if unknown, as in files of other projects.
    """

    weights: dict[str, Tensor]  # of AttentiveProbe
    heads: int
    classes: tuple[str, ...] = ()
    centre: float = 0.0
    scale: float = 1.0
    normed: bool = False
    grid: tuple[int, ...] = ()
    averaged: tuple[int, ...] = ()

    @property
    def blocks(self) -> int:
        """Self-attention blocks and the cross-attention."""
        return 1 + len({name.split(".")[1] for name in self.weights if name.startswith("blocks.")})

    def network(self) -> AttentiveProbe:
        """The probe in evaluation mode: tokens [B, M, D] -> [B, outputs]; raises CheckpointError."""
        classifier = self.weights["classifier.weight"]
        with torch.random.fork_rng(devices=[]):
            probe = AttentiveProbe(classifier.shape[1], len(classifier), self.blocks, self.heads)
        try:
            probe.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"these are no weights of an attentive probe: {str(error).splitlines()[-1]}"
            ) from error
        return probe.eval().requires_grad_(False)

    def averages(self) -> Tensor | None:
        """The matrix [M, N] that averaged neighbouring tokens in training; None if they were not averaged."""
        return averages(self.grid, self.averaged)

    def check_grid(self, grid: Sequence[int]) -> None:
        """Raise ConfigError unless the probe was trained on this grid of tokens, as far as that is known."""
        if self.grid and tuple(grid) != self.grid:
            raise ConfigError(f"the probe was trained on a grid of {_text(self.grid)} tokens; here it is {_text(grid)}")

    def logits(self, tokens: Tensor) -> Tensor:
        """Outputs for all tokens of the encoder: [B, N, D] -> [B, outputs]; raises ConfigError for another number.

        Tokens that a sample lacks are NaN, as `jepa embed` writes them.
        """
        if self.grid and tokens.shape[1] != math.prod(self.grid):
            raise ConfigError(
                f"the probe was trained on a grid of {_text(self.grid)} tokens; here are {tokens.shape[1]} tokens"
            )
        outputs: Tensor = self.network()(*self.prepared(tokens, self.averages()))
        return outputs

    def prepared(self, tokens: Tensor, matrix: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What `network` takes for all tokens of the encoder, NaN where a sample lacks them: [B, N, D] -> [B, M, D].

        matrix: of `averages`. The second value tells which tokens exist, bool [B, M], None for all.
        """
        tokens, valid = without_nan(averaged(tokens, matrix))
        return F.layer_norm(tokens, tokens.shape[-1:]) if self.normed else tokens, valid

    def save(self, path: Path) -> None:
        """Write the probe to a file, atomically."""
        aside = path.with_name(path.name + ".partial")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        with replacing(path, aside):
            torch.save({"format": FORMAT, **fields}, aside)

    @classmethod
    def load(cls, path: Path) -> "SavedProbe":
        """Read a probe without executing anything in the file; raises CheckpointError."""
        content = read_content(path)
        if not cls.recognises(content):
            raise CheckpointError(f"{path} is no attentive probe of this framework")
        return cls(**{name: value for name, value in content.items() if name != "format"})

    @staticmethod
    def recognises(content: Any) -> bool:
        """Whether the content of a file is such a probe."""
        return isinstance(content, dict) and content.get("format") == FORMAT


def _text(grid: Sequence[int]) -> str:
    return " x ".join(map(str, grid))
