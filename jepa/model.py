"""A JEPA: context encoder, predictor and target encoder, and the moving average that updates the target encoder."""

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils._pytree import tree_map

from jepa.distributed import local, local_shards
from jepa.encoder import TokenEncoder, gather_tokens
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.model_config import Contrast, NetworksConfig
from jepa.predictor import Predictor, PredictorTask
from jepa.targets import TargetKind, build_target
from jepa.transformer import NORM_EPS


class Pair(NamedTuple):
    """A prediction and its target. L: layers that are predicted separately, 1 if there is one target."""

    predicted: Tensor  # [B, M, Kt, L, D]
    target: Tensor  # [B, M, Kt, L, D], no gradient
    valid: Tensor | None = None  # bool [B, M, Kt], targets that the samples have; None for all


class Prediction(NamedTuple):
    """Results of one set of masks."""

    pairs: dict[TargetKind, Pair]
    pooled: dict[str, Tensor]  # [B, P] by stream: projected mean of the encoded context


class ContrastPair(NamedTuple):
    """Matching vectors of two streams; their logits are scale * cosine + shift."""

    streams: tuple[Tensor, Tensor]  # [B, D] each
    scale: Tensor  # [1], the inverse temperature
    shift: Tensor  # [1]


class Output(NamedTuple):
    """Results of a forward pass: one prediction per set of masks, and the vectors of the contrast, if there is one."""

    predictions: list[Prediction]
    contrast: ContrastPair | None


class JEPA(nn.Module):
    """Joint-embedding predictive architecture (Assran et al. 2023, fig. 3).

    targets: the kinds of target that the predictor has outputs for; each step learns some of them, see targets.py.
    `pixels` gives the masked autoencoder (He et al. 2022) on the same encoder, masks and predictor. Departs from the
    masked autoencoder: the loss is that of the config, and a moving average of the weights is kept.
    """

    def __init__(
        self, config: NetworksConfig, modality: Modality[Any], targets: tuple[TargetKind, ...] = ("latent",)
    ) -> None:
        super().__init__()
        self.config, self.to_network = config, modality.to_network
        self.context_encoder: TokenEncoder = modality.encoder(config)
        self.target_by_kind = {kind: build_target(kind, config, modality, self.context_encoder) for kind in targets}
        task = PredictorTask(
            inputs=self.context_encoder.dim,
            outputs=sum(target.values for target in self.target_by_kind.values()),
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
    ) -> Output:
        """Predict the targets of every set of masks; mask set i applies to view i mod V of the V views [B, ...].

        The target encoder runs once per view. The views may be as the loader sends them.
        """
        views = [self.to_network(view) for view in views]
        targets = {kind: [self.targets(view, kind) for view in views] for kind in kinds}  # [B, N, L, D]
        valid = [self.context_encoder.valid(view) for view in views]  # bool [B, N] each, or None
        masks = [one.bind(valid[number % len(views)], number) for number, one in enumerate(masks)]
        span = self._span(kinds)
        contexts, predicted = self._encode_and_predict(views, masks, span)
        predictions, vectors = [], []
        for number, (one, context, outputs) in enumerate(zip(masks, contexts, predicted, strict=True)):
            view = number % len(views)
            pairs = {kind: self._pair(kind, span, outputs, targets[kind][view], one) for kind in kinds}
            vectors.append(self.context_encoder.pool(context, one))
            pooled = {stream: self.projectors[stream](vector) for stream, vector in vectors[-1].items()}
            predictions.append(Prediction(pairs, pooled))
        return Output(predictions, self._contrast_pair(vectors, masks) if self.contrast is not None else None)

    @torch.no_grad()
    def targets(self, inputs: Any, kind: TargetKind = "latent", masks: Masks | None = None) -> Tensor:
        """Targets of all tokens: inputs -> [B, N, L, D]; see `Target`, also for `masks`."""
        return self.target_by_kind[kind](inputs, self.target_encoder, masks)

    def predict(self, context: Tensor, masks: Masks, kind: TargetKind = "latent") -> Tensor:
        """Predict the targets of a kind from an encoded context [B, Kc, D] -> [B, M, Kt, L, D]."""
        span = self._span([kind])
        return self._outputs_of(kind, span, self.predictor(context, masks, span))

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Update the target encoder: target = momentum * target + (1 - momentum) * context, for every weight."""
        update = get_ema_multi_avg_fn(momentum)
        update(local_shards(self.target_encoder), local_shards(self.context_encoder), 0)

    def clamp_contrast(self) -> None:
        """Bound the temperature of the contrast, if there is one, after a step."""
        if self.contrast is not None:
            self.contrast.clamp()

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Recompute activations of the trained networks in the backward pass: slower, with less memory."""
        self.context_encoder.activation_checkpointing = enabled
        self.predictor.activation_checkpointing = enabled

    def fsdp_units(self) -> list[nn.Module]:
        """The submodules of all networks that FSDP gathers one after the other."""
        networks = (self.context_encoder, self.predictor, self.target_encoder)
        return [unit for network in networks for unit in network.fsdp_units()]

    def _encode_and_predict(
        self, views: Sequence[Any], masks: Sequence[Masks], span: slice
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Encoded contexts [B, Kc, D] and predictor outputs [B, M, Kt, span], one of each per set of masks.

        Sets of one shape and mask token run as one larger batch. Encoders of several streams, or with their own
        `contexts`, share work between the sets of one view instead.
        """
        contexts: list[Any] = [None] * len(masks)
        if self.streams or type(self.context_encoder).contexts is not TokenEncoder.contexts:
            for first, view in enumerate(views):
                contexts[first :: len(views)] = self.context_encoder.contexts(view, masks[first :: len(views)])
            return contexts, [self.predictor(*one, span) for one in zip(contexts, masks, strict=True)]
        predicted = contexts.copy()
        groups: dict[Any, list[int]] = {}
        for number, one in enumerate(masks):
            mask_token = number % self.config.predictor.mask_tokens
            groups.setdefault((one.context.shape, one.target.shape, mask_token), []).append(number)
        for numbers in groups.values():
            together, inputs = masks[numbers[0]], views[numbers[0] % len(views)]
            if len(numbers) > 1:
                together = Masks.concatenate([masks[number] for number in numbers])
                every = (views[number % len(views)] for number in numbers)
                inputs = tree_map(lambda *leaves: torch.cat(leaves), *every)
            context = self.context_encoder(inputs, together)
            of_sets = context.chunk(len(numbers)), self.predictor(context, together, span).chunk(len(numbers))
            for number, one_context, one_prediction in zip(numbers, *of_sets, strict=True):
                contexts[number], predicted[number] = one_context, one_prediction
        return contexts, predicted

    def _pair(self, kind: TargetKind, span: slice, outputs: Tensor, targets: Tensor, masks: Masks) -> Pair:
        """Select one kind from predictor outputs [B, M, Kt, span], and its targets from those of all tokens."""
        target = gather_tokens(targets.flatten(2), masks.target).unflatten(-1, targets.shape[-2:])
        return Pair(self._outputs_of(kind, span, outputs), target, masks.valid_target)

    def _span(self, kinds: Sequence[TargetKind]) -> slice:
        """The predictor outputs from those of the first to those of the last of some kinds of target."""
        ends = list(accumulate((target.values for target in self.target_by_kind.values()), initial=0))
        numbers = [list(self.target_by_kind).index(kind) for kind in kinds]
        return slice(ends[min(numbers)], ends[max(numbers) + 1])

    def _outputs_of(self, kind: TargetKind, span: slice, outputs: Tensor) -> Tensor:
        """The values of a kind of target: predictor outputs [..., span] -> [..., L, D]."""
        target, first = self.target_by_kind[kind], self._span([kind]).start - span.start
        of_kind: Tensor = outputs.narrow(-1, first, target.values).unflatten(-1, (target.layers, target.width))
        return of_kind

    def _contrast_pair(self, vectors: Sequence[Mapping[str, Tensor]], masks: Sequence[Masks]) -> ContrastPair:
        """For each of the two streams, the vector from the set of masks that keeps most of it in the context."""
        assert self.contrast is not None
        chosen = []
        for stream in self.streams:
            sets = [number for number, of_set in enumerate(vectors) if stream in of_set]
            most = max(sets, key=lambda number: (len(vectors[number]) == 1, masks[number].context.shape[1]))
            chosen.append(vectors[most][stream])
        first, second = chosen
        return ContrastPair((first, second), *self.contrast())


class ContrastScale(nn.Module):
    """Learned inverse temperature and shift of a contrast, initialised as in the papers of each contrast.

    The inverse temperature stays at most 100 (Radford et al. 2021, sec. 2.5).
    """

    def __init__(self, contrast: Contrast) -> None:
        super().__init__()
        scale, shift = (10.0, -10.0) if contrast == "sigmoid" else (1 / 0.07, 0.0)
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))
        self.shift = nn.Parameter(torch.tensor([shift]), requires_grad=contrast == "sigmoid")

    def forward(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, [1] each."""
        # A copy, not the parameter: an output without a node in the graph looks unused to DDP, which then refuses its
        # gradient, and FSDP would add another hook to it at every step.
        return self.log_scale.exp(), self.shift.clone()

    @torch.no_grad()
    def clamp(self) -> None:
        """Bound the scale after a step; a bound inside the loss would leave no gradient to come back from it."""
        local(self.log_scale).clamp_(max=math.log(100))


def projector(dim: int, width: int) -> nn.Module:
    """Network between pooled contexts and the regulariser: [B, dim] -> [B, width], or the identity if width is 0.

    Departs from the expander of VICReg: layer norm instead of batch norm, which needs larger batches.
    """
    if not width:
        return nn.Identity()
    return nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.LayerNorm(width, NORM_EPS), nn.Linear(width, width))
