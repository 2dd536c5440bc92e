"""One vector per view: smaller views through the encoder, and all of them through the projectors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jepa.encoder import TokenEncoder
from jepa.masking import Masks
from jepa.multiview.distance import Vectors


def local_vectors(encoder: TokenEncoder, inputs: Any, count: int, table: Tensor) -> list[dict[str, Tensor]]:
    """Pooled tokens of each of `count` smaller views that are one batch: inputs [count * B, ...] -> [B, D] by stream.

    table: of their positions, see `TokenEncoder.position_table`.
    """
    valid = encoder.valid(inputs)
    tokens = encoder.encode_local(inputs, table)
    pooled = encoder.pool(tokens, None if valid is None else Masks.of_everything(valid))
    parts = zip(*(rows.chunk(count) for rows in pooled.values()), strict=True)
    return [dict(zip(pooled, of_view, strict=True)) for of_view in parts]


def projected(projectors: nn.ModuleDict, vectors: Sequence[Vectors]) -> list[dict[str, Tensor]]:
    """Project the vectors of each stream, [B, D] -> [B, P]: all views as one batch, which a batch norm sees."""
    found: list[dict[str, Tensor]] = [{} for _ in vectors]
    for stream, network in projectors.items():
        numbers = [number for number, of_view in enumerate(vectors) if stream in of_view]
        if not numbers:
            continue
        rows = network(torch.cat([vectors[number][stream] for number in numbers]))
        for number, part in zip(numbers, rows.chunk(len(numbers)), strict=True):
            found[number][stream] = part
    return found
