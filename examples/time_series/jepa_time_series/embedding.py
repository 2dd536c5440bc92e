"""Stretches of single channels as tokens, some of which a sample may not have."""

from typing import Any

import torch
from torch import Tensor, nn

from jepa.encoder import PatchEmbedding, take

View = tuple[Tensor, Tensor]  # values [C, T], and which channels there are, bool [C]; with a batch axis as batches are
_QUIET = 0.01  # of the size of 1 that values have: what is weaker looks alike in a spectrum


class ChannelEmbedding(PatchEmbedding):
    """Embedding of inputs (values [B, C, T], present [B, C]): a token is `patch` values of one channel.

    The values are what is embedded; what a run may predict beside representations (`curriculum.pixel_weight`) or
    instead of them (`target`) is their spectrum: where in its swing a hidden stretch begins is anybody's guess.
    """

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__("b c (t p) -> b (c t) p", patch // 2 + 1, dim, {"p": patch})
        self.project = nn.Linear(patch, dim)

    def forward(self, inputs: Any, keep: Tensor | None = None) -> Tensor:
        """Inputs, token indices [B, K] or None for all -> [B, K, dim]."""
        stretches = self._stretches(inputs)
        return self.project(stretches if keep is None else take(stretches, keep))  # type: ignore[no-any-return]

    def patches(self, inputs: Any) -> Tensor:
        """Spectra of all tokens: [B, N, patch / 2 + 1]; of absent ones those of silence."""
        return spectrum(self._stretches(inputs))

    def present(self, inputs: Any) -> Tensor:
        """Which tokens the samples have: bool [B, N]; the encoder looks at no other, and the loss counts no other."""
        values, present = inputs
        tokens: Tensor = present.repeat_interleave(values.shape[-1] // self.sizes["p"], dim=1)
        return tokens

    def _stretches(self, inputs: Any) -> Tensor:
        """Values of all tokens: [B, N, patch]; zeros for those that are absent, whatever stands in their place."""
        values, present = inputs
        return super().patches(values.masked_fill(~present.unsqueeze(-1), 0.0))


def spectrum(stretches: Tensor) -> Tensor:
    """Logarithms of the amplitudes of all frequencies: [..., P] -> [..., P / 2 + 1], of silence 0."""
    window = torch.hann_window(stretches.shape[-1], device=stretches.device)
    level = stretches.mean(dim=-1, keepdim=True)
    amplitudes = torch.fft.rfft((stretches - level).float() * window).abs() / window.sum()
    logarithms: Tensor = (amplitudes / _QUIET).log1p()
    return logarithms
