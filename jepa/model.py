"""A JEPA: context encoder, predictor, and the target encoder, which is updated from the context encoder."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jepa.distributed import local_shards
from jepa.encoder import TokenEncoder
from jepa.masking import Masks, nearest_target, sets_together, views_together
from jepa.modality import Modality
from jepa.model_config import NetworksConfig
from jepa.multiview.vectors import local_vectors, projected
from jepa.ops.contrast import ContrastPair as ContrastPair, ContrastScale as ContrastScale
from jepa.ops.projector import projector
from jepa.predictor import Predictor, PredictorTask
from jepa.targets import VIEWS, VISIBLE, EncodedTargets, TargetKind, build_target


class Pair(NamedTuple):
    """A prediction and its target. L: layers that are predicted separately, 1 if there is one target.

    Of visible tokens, M is 1, Kt is Kc, and `nearest` has the distance of each to the nearest hidden token.
    """

    predicted: Tensor  # [B, M, Kt, L, D]
    target: Tensor  # [B, M, Kt, L, D], no gradient
    valid: Tensor | None = None  # bool [B, M, Kt], targets that the samples have; None for all
    nearest: Tensor | None = None  # [B, 1, Kc]


class Prediction(NamedTuple):
    """Results of one set of masks."""

    pairs: dict[TargetKind, Pair]
    pooled: dict[str, Tensor]  # [B, P] by stream: projected mean of the encoded context


class Output(NamedTuple):
    """Results of a forward pass: one prediction per set of masks, and vectors of the contrast and of smaller views."""

    predictions: list[Prediction]
    contrast: ContrastPair | None
    local: Sequence[Mapping[str, Tensor]] = ()  # `pooled` of each smaller view, if their distance is learned


class JEPA(nn.Module):
    """Joint-embedding predictive architecture (Assran et al. 2023, fig. 3).

    targets: the kinds of target that the predictor has outputs for; each step learns some of them, see targets.py.
    `pixels` gives the masked autoencoder (He et al. 2022) on the same encoder, masks and predictor. Departs from the
    masked autoencoder: the loss is that of the config, and a target encoder is kept.
    """

    def __init__(
        self, config: NetworksConfig, modality: Modality[Any], targets: tuple[TargetKind, ...] = ("latent",)
    ) -> None:
        super().__init__()
        self.config, self.to_network = config, modality.to_network
        self.context_encoder: TokenEncoder = modality.encoder(config)
        token_kinds = [kind for kind in targets if kind not in (VISIBLE, VIEWS)]
        self.target_by_kind = {kind: build_target(kind, config, modality, self.context_encoder) for kind in token_kinds}
        task = PredictorTask(
            inputs=self.context_encoder.dim,
            outputs=sum(target.values for target in self.target_by_kind.values()) or 1,
            positions=modality.positions,
            position_kind=config.positions,
            initialisation=config.initialisation,
            levels=max(1, len(self.context_encoder.levels)),
            visible=self.target_by_kind["latent"].values if VISIBLE in targets else 0,
        )
        if VISIBLE in targets:
            self.register_buffer("positions", modality.positions, persistent=False)
        self.predictor = Predictor(config.predictor, task).requires_grad_(bool(token_kinds))
        self.streams = [stream.name for stream in modality.streams]
        make = partial(projector, self.context_encoder.dim, config.projector, config.projector_norm)
        self.projectors = nn.ModuleDict({name: make() for name in self.streams or ["tokens"]})
        if modality.local_views:
            table = self.context_encoder.position_table(modality.local_positions)
            self.register_buffer("local_table", table, persistent=False)
        self.contrast = ContrastScale(config.contrast) if config.contrast != "none" else None
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)

    def forward(
        self,
        views: Sequence[Any],
        masks: Sequence[Masks],
        kinds: Sequence[TargetKind] = ("latent",),
        local: Sequence[Any] = (),
        project: bool = True,
    ) -> Output:
        """Predict the targets of every set of masks; mask set i applies to view i mod V of the V views [B, ...].

        The target encoder runs once, on all views, or once per set under `target_input=predicted`. The views may be as
        the loader sends them. local: smaller views, which only `views` needs. project: if the loss reads `pooled`.
        """
        views = [self.to_network(view) for view in views]
        token_kinds = [kind for kind in kinds if kind not in (VISIBLE, VIEWS)]
        valid = [self.context_encoder.valid(view) for view in views]  # bool [B, N] each, or None
        masks = [one.bind(valid[number % len(views)], number) for number, one in enumerate(masks)]
        targets = {kind: self._encoded_targets(kind, views, masks) for kind in token_kinds}
        span = self._span(token_kinds)
        contexts, predicted = self._encode_and_predict(views, masks, span, VISIBLE in kinds)
        pairs: list[dict[TargetKind, Pair]] = []
        vectors: list[Mapping[str, Tensor]] = []
        for number, (one, context, outputs) in enumerate(zip(masks, contexts, predicted, strict=True)):
            pairs.append({kind: self._pair(kind, span, outputs[0], targets[kind][number], one) for kind in token_kinds})
            if VISIBLE in kinds:
                pairs[-1][VISIBLE] = self._visible_pair(outputs[1], targets["latent"][number], one)
            if self.context_encoder.levels:
                context = context[..., -self.context_encoder.dim :]
            vectors.append(self.context_encoder.pool(context, one))
        kept = [one.context.shape[1] for one in masks]
        contrast = None if self.contrast is None else self.contrast.pair(self.streams, vectors, kept)
        if local and VIEWS in kinds:
            inputs, table = self.to_network(views_together(local)), self.get_buffer("local_table")
            vectors += local_vectors(self.context_encoder, inputs, len(local), table)
        pooled = projected(self.projectors, vectors) if project else [dict(of_view) for of_view in vectors]
        predictions = [Prediction(*both) for both in zip(pairs, pooled, strict=False)]
        return Output(predictions, contrast, pooled[len(masks) :])

    @torch.no_grad()
    def targets(self, inputs: Any, kind: TargetKind = "latent", masks: Masks | None = None) -> Tensor:
        """Targets of all tokens: inputs -> [B, N, L, D]; see `Target`, also for `masks`."""
        return self.target_by_kind[kind](inputs, self.target_encoder, masks)

    @torch.no_grad()
    def _encoded_targets(self, kind: TargetKind, views: Sequence[Any], masks: Sequence[Masks]) -> list[EncodedTargets]:
        return self.target_by_kind[kind].of_sets(views, masks, self.target_encoder)

    def predict(self, context: Tensor, masks: Masks, kind: TargetKind = "latent") -> Tensor:
        """Predict the targets of a kind from an encoded context [B, Kc, D] -> [B, M, Kt, L, D]."""
        span = self._span([kind])
        return self._outputs_of(kind, span, self.predictor(context, masks, span))

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Update the target encoder: target = momentum * target + (1 - momentum) * context, for every weight.

        Momentum 1 changes nothing, 0 copies the context encoder.
        """
        if momentum == 1:
            return
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
        self, views: Sequence[Any], masks: Sequence[Masks], span: slice, visible: bool
    ) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
        """Encoded contexts [B, Kc, D] and the results of `_predictions`, one of each per set of masks.

        Sets of one shape and mask token run as one larger batch. Encoders of several streams, or with their own
        `contexts`, share work between the sets of one view instead.
        """
        contexts: list[Any] = [None] * len(masks)
        if self.streams or type(self.context_encoder).contexts is not TokenEncoder.contexts:
            for first, view in enumerate(views):
                contexts[first :: len(views)] = self.context_encoder.contexts(view, masks[first :: len(views)])
            pairs = zip(contexts, masks, strict=True)
            return contexts, [self._predictions(context, one, span, visible) for context, one in pairs]
        predicted = contexts.copy()
        tokens = self.config.predictor.mask_tokens
        keys = [(one.context.shape, one.target.shape, number % tokens) for number, one in enumerate(masks)]
        for numbers, inputs, together in sets_together(views, masks, keys):
            context = self.context_encoder.context(inputs, together)
            results = (context, *self._predictions(context, together, span, visible))
            of_sets = zip(*(result.chunk(len(numbers)) for result in results), strict=True)
            for number, (one_context, *outputs) in zip(numbers, of_sets, strict=True):
                contexts[number], predicted[number] = one_context, tuple(outputs)
        return contexts, predicted

    def _predictions(self, context: Tensor, masks: Masks, span: slice, visible: bool) -> tuple[Tensor, ...]:
        """Predictor outputs [B, M, Kt, span], none for an empty span; if `visible`, those of the context tokens too."""
        if span.start == span.stop:
            return ()
        if visible:
            return self.predictor.with_context(context, masks, span)
        return (self.predictor(context, masks, span),)

    def _pair(self, kind: TargetKind, span: slice, outputs: Tensor, encoded: EncodedTargets, masks: Masks) -> Pair:
        """Select one kind from predictor outputs [B, M, Kt, span], and its targets."""
        target = self.target_by_kind[kind].selected(encoded.raw, encoded.indices)
        return Pair(self._outputs_of(kind, span, outputs), target, masks.valid_target)

    def _visible_pair(self, outputs: Tensor, encoded: EncodedTargets, masks: Masks) -> Pair:
        """The pair of the context tokens, from predictor outputs [B, 1, Kc, values] and targets of all tokens."""
        target = self.target_by_kind["latent"].selected(encoded.raw, masks.context.unsqueeze(1))
        valid = None if masks.valid_context is None else masks.valid_context.unsqueeze(1)
        nearest = nearest_target(masks, self.get_buffer("positions")).unsqueeze(1)
        return Pair(outputs.unflatten(-1, target.shape[-2:]), target, valid, nearest)

    def _span(self, kinds: Sequence[TargetKind]) -> slice:
        """The predictor outputs from those of the first to those of the last of some kinds of target, if any."""
        if not kinds:
            return slice(0, 0)
        ends = list(accumulate((target.values for target in self.target_by_kind.values()), initial=0))
        numbers = [list(self.target_by_kind).index(kind) for kind in kinds]
        return slice(ends[min(numbers)], ends[max(numbers) + 1])

    def _outputs_of(self, kind: TargetKind, span: slice, outputs: Tensor) -> Tensor:
        """The values of a kind of target: predictor outputs [..., span] -> [..., L, D]."""
        target, first = self.target_by_kind[kind], self._span([kind]).start - span.start
        if target.values < outputs.shape[-1]:  # otherwise the backward pass would copy the gradient into zeros
            outputs = outputs.narrow(-1, first, target.values)
        of_kind: Tensor = outputs.unflatten(-1, (target.layers, target.width))
        return of_kind
