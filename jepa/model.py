"""A JEPA: context encoder, predictor and target encoder, and the step that moves the last one."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils._pytree import tree_leaves, tree_map

from jepa.config import ConfigError
from jepa.config.imports import imported, told
from jepa.distributed import local, local_shards
from jepa.encoder import PatchEmbedding, TokenEncoder, take
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.model_config import Contrast, NetworksConfig
from jepa.predictor import Predictor, PredictorTask
from jepa.transformer import NORM_EPS

TargetKind = str  # `latent`, `pixels`, or a function as package.module:function
TargetFunction = Callable[[Any, TokenEncoder], Tensor]


def check_target(kind: str) -> str:
    """The kind of a target; raises ValueError where it is none."""
    if kind not in ("latent", "pixels") and ":" not in kind:
        raise ValueError(f"'{kind}' is no target; use latent, pixels, or a function as package.module:function")
    return kind


class Pair(NamedTuple):
    """A guess and what it should have been. L: layers that are predicted by themselves, 1 where there is one target."""

    predicted: Tensor  # [B, M, Kt, L, D]
    target: Tensor  # [B, M, Kt, L, D], no gradient
    present: Tensor | None = None  # [B, M, Kt], which targets the samples have; None for all


class Contrasted(NamedTuple):
    """Matching vectors of two streams, and how their cosine is scaled and shifted to say that they match."""

    streams: tuple[Tensor, Tensor]  # [B, D] each
    scale: Tensor  # [1], the inverse of a temperature
    shift: Tensor  # [1]


class Prediction(NamedTuple):
    """What one set of masks gives."""

    pairs: dict[TargetKind, Pair]
    pooled: dict[str, Tensor]  # [B, P] by stream, the projected mean of what of it is in the encoded context
    contrasted: Contrasted | None = None  # of all sets of a step, in the first one


class JEPA(nn.Module):
    """Joint-embedding predictive architecture (Assran et al. 2023, fig. 3).

    targets: the kinds of target that the predictor learns, at each step some of them. `latent` predicts what the target
    encoder, a moving average of the context encoder, makes of the whole input; `pixels` predicts the raw values of the
    hidden patches, normalised per patch: the masked autoencoder (He et al. 2022) on the same encoder, masks and
    predictor. Departs from the masked autoencoder: the loss is that of the config, and an average of the weights is
    kept as well. Any other kind is a function, package.module:function: (inputs [B, ...], target encoder) -> [B, N, V],
    values for every token that are predicted as they are; what looks at the encoder has to layer-norm what it gives,
    or shrinking it would pay. It is called without gradients, also on tensors without contents (device `meta`).
    """

    def __init__(
        self, config: NetworksConfig, modality: Modality[Any], targets: tuple[TargetKind, ...] = ("latent",)
    ) -> None:
        super().__init__()
        self.config, self.target_kinds = config, targets
        self.context_encoder: TokenEncoder = modality.encoder(config)
        self.functions = {kind: _target_function(kind) for kind in targets if ":" in kind}
        self.values = {kind: self._values(kind, modality) for kind in self.functions}  # a token, V
        task = PredictorTask(
            inputs=self.context_encoder.dim,
            outputs=sum(math.prod(self._target_shape(kind)) for kind in targets),
            positions=modality.positions,
            position_kind=config.positions,
            initialisation=config.initialisation,
        )
        self.predictor = Predictor(config.predictor, task)
        self.streams = [stream.name for stream in modality.streams]
        dim, width = self.context_encoder.dim, config.projector
        self.projectors = nn.ModuleDict({name: projector(dim, width) for name in self.streams or ["tokens"]})
        self.contrast = ContrastScale(config.contrast) if config.contrast != "none" else None
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)

    def forward(
        self, views: Sequence[Any], masks: Sequence[Masks], kinds: Sequence[TargetKind] = ("latent",)
    ) -> list[Prediction]:
        """Views, each [B, ...], and the sets of masks that are laid over them in turn -> a prediction a set.

        One pass of the target encoder serves all sets of a view.
        """
        targets = {kind: [self.targets(view, kind) for view in views] for kind in kinds}  # [B, N, L, D]
        present = [self.context_encoder.present(view) for view in views]  # [B, N] each, or None
        contexts, guesses = self._predict(views, masks, present)
        predictions, vectors = [], []
        for number, (masked, context, guess) in enumerate(zip(masks, contexts, guesses, strict=True)):
            of_view = number % len(views)
            pairs = {kind: self._pair(kind, guess, targets[kind][of_view], masked, present[of_view]) for kind in kinds}
            vectors.append(self.context_encoder.pool(context, masked.parts, _present_at(present[of_view], masked)))
            pooled = {stream: self.projectors[stream](vector) for stream, vector in vectors[-1].items()}
            predictions.append(Prediction(pairs, pooled))
        if self.contrast is not None and predictions:
            predictions[0] = predictions[0]._replace(contrasted=self._contrasted(vectors, masks))
        return predictions

    def guess(
        self, context: Tensor, masks: Masks, kind: TargetKind = "latent", present: Tensor | None = None
    ) -> Tensor:
        """What the predictor makes of an encoded context [B, Kc, D]: [B, M, Kt, L, D]."""
        return self._part(kind, self.predictor(context, masks, present=present))

    def _contrasted(self, vectors: Sequence[Mapping[str, Tensor]], masks: Sequence[Masks]) -> Contrasted:
        """Of each of the two streams the vector from the set of masks that leaves most of it in the context."""
        assert self.contrast is not None
        found = []
        for stream in self.streams:
            sets = [number for number, of_set in enumerate(vectors) if stream in of_set]
            most = max(sets, key=lambda number: (len(vectors[number]) == 1, masks[number].context.shape[1]))
            found.append(vectors[most][stream])
        first, second = found
        return Contrasted((first, second), *self.contrast())

    def _pair(self, kind: TargetKind, guess: Tensor, whole: Tensor, masks: Masks, present: Tensor | None) -> Pair:
        """The part of a guess [B, M, Kt, outputs] for one kind of target, and that of the whole target [B, N, L, D]."""
        target = take(whole.flatten(2), masks.target).unflatten(-1, whole.shape[-2:])
        there = None if present is None else present.gather(1, masks.target.flatten(1)).view(masks.target.shape)
        return Pair(self._part(kind, guess), target, there)

    def _part(self, kind: TargetKind, guess: Tensor) -> Tensor:
        before = self.target_kinds[: self.target_kinds.index(kind)]
        first = sum(math.prod(self._target_shape(other)) for other in before)
        shape = self._target_shape(kind)
        part: Tensor = guess.narrow(-1, first, math.prod(shape)).unflatten(-1, shape)
        return part

    def _predict(
        self, views: Sequence[Any], masks: Sequence[Masks], present: Sequence[Tensor | None]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Encoded contexts and guesses, one of each a set; sets of one shape are computed as one larger batch."""
        seen = [number % len(views) for number in range(len(masks))]
        alike = len({(masked.context.shape, masked.target.shape) for masked in masks}) == 1
        if alike and not self.streams and self.config.predictor.mask_tokens == 1:
            together = Masks.concatenate(masks)
            inputs = tree_map(lambda *leaves: torch.cat(leaves), *(views[number] for number in seen))
            there = _joined([present[number] for number in seen])
            context = self.context_encoder(inputs, together.context)
            return context.chunk(len(masks)), self.predictor(context, together, present=there).chunk(len(masks))
        contexts = self._contexts(views, masks)
        sets = enumerate(zip(contexts, masks, strict=True))
        return contexts, [
            self.predictor(context, masked, number, present[seen[number]]) for number, (context, masked) in sets
        ]

    def _contexts(self, views: Sequence[Any], masks: Sequence[Masks]) -> list[Tensor]:
        """Encoded contexts, one a set, the sets of one view together."""
        contexts: dict[int, Tensor] = {}
        for first, view in enumerate(views):
            numbers = range(first, len(masks), len(views))
            laid = [masks[number] for number in numbers]
            contexts.update(zip(numbers, self.context_encoder.contexts(view, laid), strict=True))
        return [contexts[number] for number in range(len(masks))]

    @torch.no_grad()
    def targets(self, inputs: Any, kind: TargetKind = "latent", keep: Tensor | None = None) -> Tensor:
        """What is to be predicted, for every token: inputs -> [B, N, L, D].

        Layer-normed, but for what a function gives: shrinking them must not pay. keep: for `latent`, the tokens [B, K]
        that alone are seen, and given.
        """
        if kind == "pixels":
            values = self._patch_embedding().patches(inputs).unsqueeze(2)
            return F.layer_norm(values, values.shape[-1:])
        if kind in self.functions:
            return self.functions[kind](inputs, self.target_encoder).unsqueeze(2)
        outputs = self.target_encoder.outputs(inputs, keep)
        layers = torch.stack([outputs[index] for index in self.config.target_outputs], dim=2)
        normed = F.layer_norm(layers, layers.shape[-1:])
        if self.config.target_join == "each" or normed.shape[2] == 1:
            return normed
        mean = normed.mean(dim=2, keepdim=True)
        return F.layer_norm(mean, mean.shape[-1:])

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the target encoder: target = momentum * target + (1 - momentum) * context, for every weight."""
        move = get_ema_multi_avg_fn(momentum)
        move(local_shards(self.target_encoder), local_shards(self.context_encoder), 0)

    def bound_contrast(self) -> None:
        """Keep the temperature of a contrast, where there is one, from falling further than it may."""
        if self.contrast is not None:
            self.contrast.bound()

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Trade memory for time in the networks that learn."""
        self.context_encoder.activation_checkpointing = enabled
        self.predictor.activation_checkpointing = enabled

    def units(self) -> list[nn.Module]:
        """The parts of all networks that run one after the other; see `TokenEncoder.units`."""
        networks = (self.context_encoder, self.predictor, self.target_encoder)
        return [unit for network in networks for unit in network.units()]

    def _target_shape(self, kind: TargetKind) -> tuple[int, int]:
        """Layers and width of a target: L, D."""
        if kind == "pixels":
            return 1, self._patch_embedding().values
        if kind in self.functions:
            return 1, self.values[kind]
        each = self.config.target_join == "each"
        return len(self.config.target_outputs) if each else 1, self.context_encoder.dim

    @torch.no_grad()
    def _values(self, kind: TargetKind, modality: Modality[Any]) -> int:
        """How many values a function gives for a token; raises ConfigError where it does not fit the modality."""
        meta, tokens = self.context_encoder.device.type == "meta", len(modality.positions)
        view = tree_map(lambda leaf: leaf.unsqueeze(0), modality.example_view())
        seen = to_shape(view) if meta else tree_map(torch.clone, view)
        try:
            values = self.functions[kind](seen, self.context_encoder)
        except Exception as error:
            hint = "; a dry run and parallel=fsdp call it on tensors of shapes without values" if meta else ""
            raise ConfigError(f"target: {kind} fails on a view: {told(error)}{hint}") from error
        if flaw := _values_flaw(values, tokens):
            raise ConfigError(f"target: {kind} gives {flaw}")
        if not meta and not all(map(_unchanged, tree_leaves(view), tree_leaves(seen))):
            raise ConfigError(f"target: {kind} changes the inputs, which the encoder sees next; let it work on a copy")
        return int(values.shape[2])

    def _patch_embedding(self) -> PatchEmbedding:
        embedding = getattr(self.context_encoder, "embedding", None)
        if not isinstance(embedding, PatchEmbedding):
            raise ConfigError("target=pixels needs a modality whose tokens are patches of raw values (PatchEmbedding)")
        return embedding


class ContrastScale(nn.Module):
    """The learned temperature, and shift, of a contrast; they start as in the methods that it is named after.

    The inverse of the temperature stays at most 100 (Radford et al. 2021, sec. 2.5).
    """

    def __init__(self, contrast: Contrast) -> None:
        super().__init__()
        scale, shift = (10.0, -10.0) if contrast == "sigmoid" else (1 / 0.07, 0.0)
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))
        self.shift = nn.Parameter(torch.tensor([shift]), requires_grad=contrast == "sigmoid")

    def forward(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, [1] each."""
        # Not the parameter itself: an output without a node in the graph looks unused to DDP, which then refuses its
        # gradient, and FSDP would hang one more hook on it at every step.
        return self.log_scale.exp(), self.shift.clone()

    @torch.no_grad()
    def bound(self) -> None:
        """Bring the temperature back after a step; bounded in the loss instead, it would get no gradient to return."""
        local(self.log_scale).clamp_(max=math.log(100))


def _target_function(kind: TargetKind) -> TargetFunction:
    try:
        function: TargetFunction = imported(kind)
    except ValueError as error:
        raise ConfigError(f"target: {error}") from error
    return function


def _values_flaw(values: Any, tokens: int) -> str:
    """What keeps the target of one sample from being used, in words; empty where nothing does."""
    if not isinstance(values, Tensor):
        return f"a {type(values).__name__}; it has to be a tensor [B, {tokens}, V], values for every token"
    if values.dim() != 3 or values.shape[:2] != (1, tokens):
        form = f"[1, {tokens}, V], values for every token"
        return f"{list(values.shape)} for a batch of one; it has to be {form}"
    return "" if values.is_floating_point() else f"numbers of type {values.dtype}; they have to be floats"


def _unchanged(before: Tensor, after: Tensor) -> bool:
    return torch.equal(torch.nan_to_num(before), torch.nan_to_num(after))


def to_shape(view: Any) -> Any:
    """A view without contents: tensors of its shapes on the device `meta`."""
    return tree_map(lambda leaf: torch.empty(leaf.shape, dtype=leaf.dtype, device="meta"), view)


def _present_at(present: Tensor | None, masks: Masks) -> Tensor | None:
    """Which tokens of the context there are: [B, N] -> [B, Kc]."""
    return None if present is None else present.gather(1, masks.context)


def _joined(present: Sequence[Tensor | None]) -> Tensor | None:
    known = [one for one in present if one is not None]
    return torch.cat(known) if known else None


def projector(dim: int, width: int) -> nn.Module:
    """Pooled contexts -> what the regulariser sees: [B, dim] -> [B, width or, where width is 0, dim].

    Departs from the expander of VICReg: layer norm instead of batch norm, which small batches would not bear.
    """
    if not width:
        return nn.Identity()
    return nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.LayerNorm(width, NORM_EPS), nn.Linear(width, width))
