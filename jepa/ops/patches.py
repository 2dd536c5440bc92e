"""Inputs cut into patches, and the choice of some tokens."""

import re
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Cut inputs into patches and project them: ViT's strided convolution, which can drop tokens before projecting.

    pattern: einops pattern from input axes to `batch tokens values`, e.g. "b c (h p) (w q) -> b (h w) (p q c)".
    sizes: lengths of the pattern's axes that the input shape does not determine, here p and q.
    """

    def __init__(self, pattern: str, values: int, dim: int, sizes: dict[str, int]) -> None:
        super().__init__()
        self.pattern, self.sizes, self.values = pattern, sizes, values
        self.project = nn.Linear(values, dim)

    def patches(self, inputs: Tensor) -> Tensor:
        """Values of every patch, as they are projected and predicted: inputs -> [B, N, values]."""
        return self.scaled(rearrange(inputs, self.pattern, **self.sizes))

    def scaled(self, patches: Tensor) -> Tensor:
        """Rescale values of patches, [B, N, values] -> the same shape; unchanged here, for subclasses to override."""
        return patches

    def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Tensor:
        """Embed all tokens, or those at indices keep [B, K] -> [B, N or K, D]."""
        if keep is None:
            patches = self.patches(inputs)
        elif type(self).patches is PatchEmbedding.patches:
            patches = self.scaled(self._kept(inputs, keep))
        else:  # a subclass makes its own patches
            patches = gather_tokens(self.patches(inputs), keep)
        return self.project(patches)  # type: ignore[no-any-return]

    def _kept(self, inputs: Tensor, keep: Tensor) -> Tensor:
        """The patches at indices keep [B, K] -> [B, K, values], unscaled, without copying the others."""
        before, after = self.pattern.split("->")
        groups = [group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", after)]  # batch, tokens, values
        patches = rearrange(inputs, f"{before}->{after.translate(_NO_BRACKETS)}", **self.sizes)  # a view
        batch = torch.arange(len(keep), device=keep.device).unsqueeze(1)
        return patches[batch, *_coordinates(keep, patches.shape[1 : 1 + len(groups[1])])].flatten(2)


_NO_BRACKETS = str.maketrans("", "", "()")


def _coordinates(indices: Tensor, shape: Sequence[int]) -> Sequence[Tensor]:
    """As torch.unravel_index, which copies the shape to the device and so makes the host wait for a GPU."""
    found: list[Tensor] = []
    for size in reversed(shape):
        found.insert(0, indices % size)
        indices = indices // size
    return found


def patch_embedding(pattern: str, values: int, dim: int, **sizes: int) -> PatchEmbedding:
    """`PatchEmbedding` with the axis sizes of the pattern as keywords."""
    return PatchEmbedding(pattern, values, dim, sizes)


def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Select tokens by index, per sample: [B, N, D], [B, ...] -> [B, ..., D]."""
    first = torch.arange(len(tokens), device=tokens.device) * tokens.shape[1]
    rows = indices.flatten(1) + first.unsqueeze(1)  # numbers in [B * N, D]: faster than `Tensor.gather`
    return tokens.flatten(0, 1).index_select(0, rows.flatten()).view(*indices.shape, tokens.shape[-1])


def mean_tokens(tokens: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of the valid tokens, or of all if none is valid: [B, N, D], bool [B, N] or None -> [B, D]."""
    if valid is None:
        return tokens.mean(dim=1)
    weights = (valid | ~valid.any(dim=1, keepdim=True)).to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1)
