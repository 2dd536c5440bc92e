"""Network between pooled contexts and the regulariser."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from jepa.distributed import gather_rows

ProjectorNorm = Literal["layer", "batch"]
Widths = int | Sequence[int]


def projector(dim: int, widths: Widths, norm: ProjectorNorm = "layer") -> nn.Module:
    """Linear layers of these widths, [B, dim] -> [B, widths[-1]]; a number w means [w, w], 0 and [] the identity.

    Between them, `layer` puts GELU and a layer norm, which work at any batch size, `batch` the batch norm and ReLU of
    VICReg and LeJEPA.
    """
    widths = [widths] * 2 if isinstance(widths, int) else widths
    if not widths or not widths[0]:
        return nn.Identity()
    layers: list[nn.Module] = []
    for before, width in zip([dim, *widths], widths, strict=False):
        if layers:
            layers += [nn.GELU(), nn.LayerNorm(before, 1e-6)] if norm == "layer" else [BatchNorm(before), nn.ReLU()]
        layers.append(nn.Linear(before, width))
    return nn.Sequential(*layers)


class BatchNorm(nn.Module):
    """Batch norm over the rows of all processes, without running averages, as it is used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, rows: Tensor) -> Tensor:
        """[B, D] -> [B, D] in fp32."""
        centred = rows.float() - _over_processes(rows.float().mean(dim=0))
        deviation = (_over_processes(centred.square().mean(dim=0)) + 1e-5).sqrt()
        return centred / deviation * self.weight + self.bias


def _over_processes(mean: Tensor) -> Tensor:
    """Mean of [D] over processes with equally many rows, with gradients as in `gather_rows`."""
    return gather_rows(mean.unsqueeze(0)).mean(dim=0)
