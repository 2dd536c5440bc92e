"""Segments of single channels as tokens; samples may lack some of them."""

from typing import Any

import torch
from torch import Tensor, nn

from jepa.encoder import PatchEmbedding, TokenEncoder, gather_tokens

View = tuple[Tensor, Tensor]  # values [C, T] and which channels are present, bool [C]; batched, each has an axis B
_QUIET = 0.01  # amplitude below which a logarithmic spectrum is flat; values have a magnitude of 1


class ChannelEmbedding(PatchEmbedding):
    """Embedding of inputs (values [B, C, T], present [B, C]): a token is `patch` values of one channel.

    It embeds the values. As prediction targets, beside representations or instead of them, it gives their spectrum,
    because the phase of a hidden segment cannot be predicted: `spectra` below as it is, `pixels` normalised per token.
    """

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__("b c (t p) -> b (c t) p", patch // 2 + 1, dim, {"p": patch})
        self.project = nn.Linear(patch, dim)

    def forward(self, inputs: Any, keep: Tensor | None = None) -> Tensor:
        """Inputs, token indices [B, K] or None for all -> [B, K, dim]."""
        segments = self._segments(inputs)
        return self.project(segments if keep is None else gather_tokens(segments, keep))  # type: ignore[no-any-return]

    def patches(self, inputs: Any) -> Tensor:
        """Spectra of all tokens: [B, N, patch / 2 + 1]; zeros for absent ones."""
        return spectrum(self._segments(inputs))

    def valid(self, inputs: Any) -> Tensor:
        """Which tokens the samples have: bool [B, N]; the encoder and the loss ignore all others."""
        values, present = inputs
        tokens: Tensor = present.repeat_interleave(values.shape[-1] // self.sizes["p"], dim=1)
        return tokens

    def _segments(self, inputs: Any) -> Tensor:
        """Values of all tokens: [B, N, patch]; zeros for absent ones."""
        values, present = inputs
        return super().patches(values.masked_fill(~present.unsqueeze(-1), 0.0))


def spectra(inputs: View, encoder: TokenEncoder) -> Tensor:
    """Target `jepa_time_series.embedding:spectra`: spectra that are not normalised -> [B, N, patch / 2 + 1].

    They keep the strength of a movement, which tells activities apart; `pixels` normalises it away.
    """
    embedding = encoder.embedding
    assert isinstance(embedding, ChannelEmbedding)  # the modality gives no other
    return embedding.patches(inputs)


def spectrum(segments: Tensor) -> Tensor:
    """Logarithmic amplitudes of all frequencies, 0 for silence: [..., P] -> [..., P / 2 + 1]."""
    window = torch.hann_window(segments.shape[-1], device=segments.device)
    mean = segments.mean(dim=-1, keepdim=True)
    amplitudes = torch.fft.rfft((segments - mean).float() * window).abs() / window.sum()
    logarithms: Tensor = (amplitudes / _QUIET).log1p()
    return logarithms
