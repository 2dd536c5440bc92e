"""The encoder: its output for all tokens, and for the tokens of a context."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import default_collate

from jepa.data import seeded
from jepa.encoder import Encoder, TokenEncoder, VitSize, gather_tokens
from jepa.masking import Masks
from jepa.modality import BadSampleError, Modality
from jepa.model_config import ModelConfig, NetworksConfig
from jepa.predictor import PredictorConfig
from jepa.testing.compare import describe, global_seed
from jepa.testing.samples import first_samples
from jepa.training.networks import flaw_of_call

_BATCH = 3
_CLOSE = 1e-4


def small_networks(modality: Modality[Any]) -> NetworksConfig:
    """A transformer that trains in a moment, or the defaults of a custom `model_type`."""
    if modality.model_type is not ModelConfig:
        return modality.model_type()
    width = 48 * modality.positions.shape[1]  # divides evenly among any number of axes
    predictor = PredictorConfig(width=width, depth=1, heads=2)
    return ModelConfig(size=VitSize(width=width, depth=2, heads=2), predictor=predictor)


@torch.no_grad()
def check_networks(modality: Modality[Any], model: NetworksConfig) -> Iterator[str]:
    """Check shapes, names and layers of outputs, and that a context hides the other tokens."""
    with global_seed(0):
        encoder = modality.encoder(model)
    if not isinstance(encoder, TokenEncoder):
        yield f"encoder returns a {type(encoder).__name__}, not a jepa.encoder.TokenEncoder"
        return
    encoder.eval()
    inputs, tokens = _batch(modality), len(modality.positions)
    if isinstance(encoder, Encoder) and (flaw := _embedding_flaw(encoder.embedding, inputs, tokens, encoder.dim)):
        yield flaw
        return
    whole = encoder(inputs)
    if whole.shape != (_BATCH, tokens, encoder.dim):
        wanted = [_BATCH, tokens, encoder.dim]
        yield f"encoder returns {list(whole.shape)} for {_BATCH} samples; expected {wanted}, every token of `positions`"
    valid = encoder.valid(inputs)
    if valid is not None and (valid.dtype != torch.bool or valid.shape != (_BATCH, tokens)):
        yield f"valid returns {describe(valid)}; expected bool [{_BATCH}, {tokens}], true for tokens that exist"
    if not modality.streams and (count := len(encoder.outputs(inputs))) != model.depth + 1:
        yield f"encoder.outputs returns {count} layers; expected {model.depth + 1}: embedding and model.depth blocks"
    for masks in modality.sample_masks(_BATCH, seeded("networks")):
        kept = encoder(inputs, masks)
        if kept.shape != (*masks.context.shape, encoder.dim):
            yield f"encoder returns {list(kept.shape)} for a context of {masks.context.shape[1]} tokens"
        elif (
            not modality.streams and torch.equal(kept, gather_tokens(whole, masks.context)) and _mixes(encoder, inputs)
        ):
            yield "encoder mixes hidden tokens into those of a context: drop hidden tokens before tokens are mixed"
            break
    pooled = encoder.pool(whole, None if valid is None else Masks.of_everything(valid))
    pooled_names, streams = set(pooled), {one.name for one in modality.streams} or {"tokens"}
    if pooled_names != streams:
        yield f"encoder.pool returns {', '.join(sorted(pooled_names))}; expected {', '.join(sorted(streams))}"


@torch.enable_grad()
def _mixes(encoder: TokenEncoder, inputs: Any) -> bool:
    """Whether two distant tokens depend on the same inputs, judged by gradients."""
    leaves = [leaf for leaf in tree_leaves(inputs) if leaf.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    tokens = encoder(inputs)[0]  # [N, D]
    if not (leaves and tokens.requires_grad):
        return False
    weights = torch.randn(tokens.shape[1], generator=seeded("weights"))  # plain sums of normed vectors are equal
    reach = []
    for token in (tokens[0], tokens[len(tokens) // 2]):
        gradients = torch.autograd.grad((token * weights).sum(), leaves, retain_graph=True, allow_unused=True)
        reach.append(torch.cat([one.flatten() != 0 for one in gradients if one is not None] or [torch.zeros(0)]))
    for leaf in leaves:
        leaf.requires_grad_(False)
    return bool(len(reach[0]) == len(reach[1]) and 2 * (reach[0] * reach[1]).sum() > reach[0].sum() > 0)


def _batch(modality: Modality[Any]) -> Any:
    views = []
    for sample in first_samples(modality, "train").values():
        with suppress(BadSampleError):
            views.append(modality.evaluation_view(sample.inputs))
    return default_collate([views[number % len(views)] for number in range(_BATCH)])


def _embedding_flaw(embedding: nn.Module, inputs: Any, tokens: int, dim: int) -> str:
    if flaw := flaw_of_call(embedding):
        return flaw
    whole: Tensor = embedding(inputs, None)
    if whole.shape != (_BATCH, tokens, dim):
        expected = f"{[_BATCH, tokens, dim]}, a vector for every token of the grid"
        return f"embedding returns {list(whole.shape)} for {_BATCH} samples; expected {expected}"
    orders = torch.stack([torch.randperm(tokens, generator=seeded("keep", row)) for row in range(_BATCH)])
    keep = orders[:, : max(1, tokens // 2)].sort().values
    kept: Tensor = embedding(inputs, keep)
    if kept.shape != (*keep.shape, dim):
        return f"embedding returns {list(kept.shape)} for keep {list(keep.shape)}"
    scale = float(whole.abs().mean()) + _CLOSE
    if float((kept - gather_tokens(whole, keep)).abs().max()) > 10 * _CLOSE * scale:
        return "embedding returns other vectors for kept tokens than for the same tokens among all"
    return ""
