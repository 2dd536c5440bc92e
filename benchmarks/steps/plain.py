"""The published step of I-JEPA and V-JEPA, written plainly from the papers to be measured against.

Assran et al. 2023 and Bardes et al. 2024, in torch's own layers: the whole input is embedded by a convolution, then
tokens are selected; under autocast, positions in fp32 keep the residual stream in fp32; I-JEPA repeats the context for
every target block; V-JEPA encodes the clip once per set of masks; the moving average takes one parameter at a time.
Weights, masks and results are those of our networks: `agreement` compares loss and gradients.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.steps.cases import LEARNING_RATE, MOMENTUM, Ours, Precision
from jepa.masking import Masks
from jepa.model import JEPA


class Attention(nn.Module):
    """Self-attention, by torch's fused function or by two products and a softmax, as I-JEPA's code does."""

    def __init__(self, dim: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        if self.fused:
            attended = F.scaled_dot_product_attention(query, key, value)
        else:
            scores = query @ key.transpose(-2, -1) * (dim // self.heads) ** -0.5
            attended = scores.softmax(dim=-1) @ value
        return self.proj(attended.transpose(1, 2).reshape(batch, count, dim))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm transformer block; its names are those of our blocks."""

    def __init__(self, dim: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attention = Attention(dim, heads, fused)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Vision transformer with fixed positions that drops tokens after the embedding."""

    table: Tensor

    def __init__(self, patch: Sequence[int], table: Tensor, depth: int, heads: int, fused: bool) -> None:
        super().__init__()
        dim, convolution = table.shape[-1], nn.Conv2d if len(patch) == 2 else nn.Conv3d
        self.embed: nn.Module = convolution(3, dim, tuple(patch), stride=tuple(patch))  # type: ignore[arg-type]
        self.register_buffer("table", table.clone())
        self.blocks = nn.ModuleList(Block(dim, heads, fused) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, 1e-6)

    def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Tensor:
        tokens = self.embed(inputs).flatten(2).transpose(1, 2) + self.table
        if keep is not None:
            tokens = select(tokens, keep)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)  # type: ignore[no-any-return]


class Predictor(nn.Module):
    """Narrow transformer over the context and one mask token per target."""

    table: Tensor

    def __init__(self, dim: int, table: Tensor, depth: int, heads: int, mask_tokens: int, fused: bool) -> None:
        super().__init__()
        width = table.shape[-1]
        self.embed, self.project = nn.Linear(dim, width), nn.Linear(width, dim)
        self.mask_tokens = nn.ParameterList(torch.zeros(width) for _ in range(mask_tokens))
        self.register_buffer("table", table.clone())
        self.blocks = nn.ModuleList(Block(width, heads, fused) for _ in range(depth))
        self.norm = nn.LayerNorm(width, 1e-6)

    def forward(self, context: Tensor, masks: Masks, number: int) -> Tensor:
        """Context [B, Kc, D] -> predictions [M * B, Kt, D], block after block."""
        batch, blocks, size = masks.target.shape
        table = self.table.expand(batch, -1, -1)
        tokens = self.embed(context) + select(table, masks.context)
        places = torch.cat([select(table, masks.target[:, block]) for block in range(blocks)])
        queries = self.mask_tokens[number].repeat(blocks * batch, size, 1) + places
        tokens = torch.cat((tokens.repeat(blocks, 1, 1), queries), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.project(self.norm(tokens)[:, -size:])  # type: ignore[no-any-return]


def select(tokens: Tensor, indices: Tensor) -> Tensor:
    """Tokens [B, N, D] at indices [B, K] -> [B, K, D]."""
    return torch.gather(tokens, 1, indices.unsqueeze(-1).repeat(1, 1, tokens.shape[-1]))


class Plain:
    """A training step as published, at the sizes and weights of ours."""

    def __init__(self, ours: Ours, precision: Precision, fused: bool) -> None:
        model, config = ours.model, ours.config
        self.batch, self.precision, self.l1 = ours.batch, precision, config.loss.distance == "l1"
        vit, sizes = config.model.vit, config.model.predictor
        side = config.data.patch_size
        patch = [side, side] if self.batch.views[0].dim() == 4 else [config.data.tubelet, side, side]
        table = model.context_encoder.get_buffer("table")
        self.encoder = Encoder(patch, table, vit.depth, vit.heads, fused)
        self.predictor = Predictor(
            vit.width, model.predictor.table, sizes.depth, sizes.heads, len(model.predictor.mask_tokens), fused
        )
        self.networks = {"context_encoder": self.encoder, "predictor": self.predictor}
        with torch.no_grad():
            for own, other in self.pairs(model):
                own.copy_(other.view(own.shape))
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        parameters = [parameter for network in self.networks.values() for parameter in network.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in parameters if parameter.dim() > 1]},
            {"params": [parameter for parameter in parameters if parameter.dim() == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=LEARNING_RATE, betas=config.optim.betas, weight_decay=ours.optimizer.defaults["weight_decay"]
        )

    def backward(self) -> Tensor:
        """Forward and backward pass -> loss."""
        inputs = self.batch.views[0]
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            with torch.no_grad():
                encoded = self.target_encoder(inputs)
                encoded = F.layer_norm(encoded, (encoded.shape[-1],))
                targets = [
                    torch.cat([select(encoded, masks.target[:, block]) for block in range(masks.target.shape[1])])
                    for masks in self.batch.masks
                ]
            contexts = [self.encoder(inputs, masks.context) for masks in self.batch.masks]
            predicted = [
                self.predictor(context, masks, number)
                for number, (context, masks) in enumerate(zip(contexts, self.batch.masks, strict=True))
            ]
            distance = F.l1_loss if self.l1 else F.smooth_l1_loss
            loss = sum(
                (distance(one, target) for one, target in zip(predicted, targets, strict=True)), torch.zeros(())
            ) / len(targets)
        loss.backward()
        return loss.detach()

    def step(self) -> object:
        """One training step."""
        loss = self.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for context, target in zip(self.encoder.parameters(), self.target_encoder.parameters(), strict=True):
                target.data.mul_(MOMENTUM).add_((1 - MOMENTUM) * context.detach().data)
        return float(loss)

    def modules(self) -> Sequence[nn.Module]:
        """All three networks."""
        return [self.encoder, self.predictor, self.target_encoder]

    def pairs(self, model: JEPA) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """Every trained parameter with the one of our networks that it equals; patches hold channels first in both."""
        for key, network in self.networks.items():
            named = dict(model.get_submodule(key).named_parameters())
            own = [network.get_parameter(name.replace("embedding.project.", "embed.")) for name in named]
            assert len(set(own)) == len(list(network.parameters())), f"the plain {key} has other parameters than ours"
            yield from zip(own, named.values(), strict=True)


def agreement(ours: Ours, plain: Plain) -> tuple[float, float]:
    """Relative difference of the losses, and the largest one of a parameter's gradient, on the same weights."""
    first, second = float(ours.backward()), float(plain.backward())
    gaps = []
    for own, other in plain.pairs(ours.model):
        assert own.grad is not None
        assert other.grad is not None
        gaps.append(float((own.grad - other.grad.view(own.shape)).norm() / own.grad.norm().clamp_min(1e-12)))
    for method in (ours, plain):
        method.optimizer.zero_grad(set_to_none=True)
    return abs(first - second) / abs(second), max(gaps)
