"""Forecasts: from the slots before a cut, predict the representation of each later slot.

A slot is the tokens at one index of the forecast axis. The horizon is the distance of a slot from the last slot before
the cut. Errors are mean squares of layer-normed representations, as in training. Padding is not attended to, and its
representations are NaN, so that no mean counts it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from jepa.data import to_device
from jepa.encoder import mean_tokens
from jepa.evaluate.features import samples_at_once
from jepa.evaluate.reading import ViewDataset, batches, collate_views, evaluated_indices
from jepa.masking import Masks
from jepa.modality import Modality, Samples, Split
from jepa.model import JEPA
from jepa.positions import Grid
from jepa.probe.missing import nan_unless
from jepa.training.config import Config

ForecastName = Literal["direct", "rolled", "repeat", "repeat_centred", "mean"]


@dataclass(frozen=True)
class Cut:
    """A grid cut across an axis into past and future slots of S tokens each."""

    past: Tensor  # [Kc] tokens before the cut
    last_slot: Tensor  # [S] tokens of the last slot before the cut
    future: list[Tensor]  # [S] tokens of each slot after the cut, in order

    @property
    def horizons(self) -> int:
        """Number of future slots H."""
        return len(self.future)


def cut_grid(grid: Grid, axis: int, share: float) -> Cut:
    """Cut a grid at this share of the axis, with at least one slot on either side."""
    first = min(max(1, round(share * grid[axis])), grid[axis] - 1)
    tokens = torch.arange(math.prod(grid)).reshape(grid)
    slots = [slot.flatten().contiguous() for slot in tokens.unbind(axis)]
    return Cut(torch.cat(slots[:first]).sort().values, slots[first - 1], slots[first:])


@dataclass(frozen=True)
class Means:
    """Mean representations over training samples."""

    tokens: Tensor  # [N, L, D] all tokens, encoded from the whole input
    last_slot: Tensor  # [S, L, D] the last slot before the cut, encoded from the past alone


@dataclass(frozen=True)
class Forecaster:
    """Predicts the slots after a cut. normalise: layer-norm the predictions, as the loss of the run did."""

    model: JEPA
    cut: Cut
    normalise: bool

    @property
    def rolls(self) -> bool:
        """Whether predictions can be fed back as context: they hold the last layer of the encoder, unmixed."""
        config = self.model.config
        return (
            not self.model.context_encoder.levels
            and config.depth in config.target_outputs
            and (config.target_join == "each" or len(config.target_outputs) == 1)
        )

    def targets(self, inputs: Any) -> Tensor:
        """Target representations of the future: inputs -> [B, H, S, L, D]."""
        return self.token_targets(inputs)[:, torch.stack(self.cut.future)]

    def token_targets(self, inputs: Any) -> Tensor:
        """Target representations of all tokens: inputs -> [B, N, L, D]."""
        return nan_unless(self.model.target_encoder.valid(inputs), self.model.targets(inputs).float())

    def last_slot(self, inputs: Any) -> Tensor:
        """Target representation of the last past slot, encoded from the past alone: inputs -> [B, S, L, D]."""
        past = self.cut.past.to(_device(self.model))
        targets = self.model.targets(inputs, masks=Masks.of_context(past.expand(_count(inputs), -1))).float()
        valid = self.model.target_encoder.valid(inputs)
        targets = nan_unless(None if valid is None else valid[:, past], targets)
        return targets[:, torch.searchsorted(self.cut.past, self.cut.last_slot)]

    def direct(self, inputs: Any) -> Tensor:
        """All future slots predicted from the past at once, as in training: inputs -> [B, H, S, L, D].

        Predicting them one by one is worse: mask tokens attend to one another and were trained together.
        """
        return self._predict(inputs, self._context(inputs), self.cut.past, self.cut.future)

    def rolled(self, inputs: Any) -> Tensor:
        """Slots predicted one by one, each prediction joining the context of the next: inputs -> [B, H, S, L, D].

        Each step predicts all remaining slots and keeps the first. The predictor expects the encoder's last layer as
        context, but predictions are layer-normed. Before a prediction joins the context, it is therefore scaled and
        shifted to the mean and deviation of the sample's past tokens, averaged over tokens.
        """
        context, known = self._context(inputs), self.cut.past
        valid = self.model.context_encoder.valid(inputs)
        valid = None if valid is None else valid[:, known.to(valid.device)]
        level = mean_tokens(context.mean(dim=-1, keepdim=True), valid).unsqueeze(1)  # [B, 1, 1]
        spread = mean_tokens(context.std(dim=-1, correction=0, keepdim=True), valid).unsqueeze(1)
        layer = self.model.config.last_predicted
        predictions = []
        for horizon, slot in enumerate(self.cut.future):
            predictions.append(self._predict(inputs, context, known, self.cut.future[horizon:])[:, 0])
            last = predictions[-1][:, :, layer]  # [B, S, D]
            context = torch.cat((context, F.layer_norm(last, last.shape[-1:]) * spread + level), dim=1)
            known = torch.cat((known, slot))
        return torch.stack(predictions, dim=1)

    def _context(self, inputs: Any) -> Tensor:
        past = self.cut.past.to(_device(self.model)).expand(_count(inputs), -1)
        return self.model.context_encoder.context(inputs, Masks.of_context(past)).float()

    def _predict(self, inputs: Any, context: Tensor, known: Tensor, slots: Sequence[Tensor]) -> Tensor:
        """Context [B, K, D] of the tokens `known` [K] -> predicted slots [B, H, S, L, D]."""
        hidden = torch.cat(list(slots)).expand(len(context), 1, -1)  # [B, 1, H S]
        masks = Masks(known.expand(len(context), -1), hidden).to(_device(self.model))
        masks = masks.bind(self.model.context_encoder.valid(inputs))
        predicted = self.model.predict(context, masks)[:, 0].float().unflatten(1, (len(slots), -1))
        return F.layer_norm(predicted, predicted.shape[-1:]) if self.normalise else predicted

    def forecasts(self, inputs: Any, means: Means) -> dict[ForecastName, Tensor]:
        """Every forecast of the future, baselines included: inputs -> [B, H, S, L, D] each.

        repeat: the last slot before the cut. mean: the training mean of the future slot. repeat_centred: that mean plus
        the deviation of the last slot from its own training mean.
        """
        mean = means.tokens[torch.stack(self.cut.future)]  # [H, S, L, D]
        last = self.last_slot(inputs).unsqueeze(1)
        direct = self.direct(inputs)
        forecasts: dict[ForecastName, Tensor] = {"direct": direct}
        if self.rolls:
            forecasts["rolled"] = self.rolled(inputs)
        forecasts["repeat"] = last.expand_as(direct)
        forecasts["repeat_centred"] = mean + last - means.last_slot
        forecasts["mean"] = mean.expand_as(direct)
        return forecasts


def can_forecast(modality: Modality[Any], config: Config[Any, Any]) -> bool:
    """Whether the grid has a forecast axis, and the run learned to predict representations."""
    axis = modality.forecast_axis
    return axis is not None and modality.grid[axis] > 1 and "latent" in config.target_kinds


def build_forecaster(model: JEPA, modality: Modality[Any], config: Config[Any, Any]) -> Forecaster:
    """The forecaster of a run for which `can_forecast` holds."""
    assert modality.forecast_axis is not None
    cut = cut_grid(modality.grid, modality.forecast_axis, config.evaluate.forecast_cut)
    return Forecaster(model, cut, config.loss.normalise_prediction)


def error_maps(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared errors of tokens: [B, H, S, L, D] twice -> [B, H, S]."""
    return (predicted - target).square().mean(dim=(-2, -1))


@dataclass(frozen=True)
class InputBatches:
    """Reads batches of inputs. on_bad: called with the samples that cannot be read."""

    modality: Modality[Any]
    config: Config[Any, Any]
    device: torch.device
    on_bad: Callable[[list[tuple[str, str]]], None]

    def of(self, samples: Samples, split: Split) -> Iterator[Any]:
        """Inputs [B, ...] of the evaluated samples of a split."""
        evaluate = self.config.evaluate
        indices = evaluated_indices(len(samples), evaluate.forecast_samples, split)
        views = ViewDataset(self.modality, samples, indices, averaged=False)
        size, loaders = samples_at_once(self.modality, evaluate.batch_size), self.config.compute.loaders(self.device)
        for batch in batches(views, size, loaders, collate_views):
            self.on_bad(batch.bad)
            if batch.count:
                yield to_device(batch.views[0], self.device)


@torch.inference_mode()
def training_means(forecaster: Forecaster, samples: Samples, batches: InputBatches) -> tuple[Means, int]:
    """Means over training samples, and the number of samples."""
    totals, known, count = [torch.zeros(()).double()] * 2, [torch.zeros(())] * 2, 0
    for inputs in batches.of(samples, "train"):
        values = [part.double().cpu() for part in (forecaster.token_targets(inputs), forecaster.last_slot(inputs))]
        totals = [total + part.nansum(dim=0) for total, part in zip(totals, values, strict=True)]
        known = [number + part.isfinite().sum(dim=0) for number, part in zip(known, values, strict=True)]
        count += _count(inputs)
    means = [(total / number.clamp_min(1)).float() for total, number in zip(totals, known, strict=True)]
    return Means(*(mean.to(batches.device) for mean in means)), count


@torch.inference_mode()
def forecast_section(
    forecaster: Forecaster, train: Samples, held_out: Samples, batches: InputBatches
) -> dict[str, Any]:
    """The `forecast` section of results.json; empty if no sample can be read."""
    axis, horizons = batches.modality.forecast_axis, forecaster.cut.horizons
    kind = batches.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=batches.config.compute.uses_bf16(kind)):
        means, train_samples = training_means(forecaster, train, batches)
        held_out_inputs = batches.of(held_out, "test") if train_samples else ()
        of_batches = []  # mean squared errors per sample and horizon, [B, H] of each forecast
        for inputs in held_out_inputs:
            target, found = forecaster.targets(inputs), forecaster.forecasts(inputs, means)
            of_batches.append({name: error_maps(one, target).nanmean(dim=-1).cpu() for name, one in found.items()})
    if not of_batches:
        return {}
    errors = torch.cat([torch.stack(list(of_batch.values()), dim=1) for of_batch in of_batches])  # [n, forecasts, H]
    names = list(of_batches[0])
    mean = errors.nanmean(dim=0)
    spread = (errors - mean).square().nanmean(dim=0).sqrt()
    return {
        "metric": "mse",
        "axis": axis,
        "seen_slots": batches.modality.grid[axis or 0] - horizons,
        "horizons": list(range(1, horizons + 1)),
        "errors": dict(zip(names, mean.tolist(), strict=True)),
        "spread": dict(zip(names, spread.tolist(), strict=True)),  # standard deviation over samples
        "train_samples": train_samples,
        "test_samples": len(errors),
    }


def _device(model: JEPA) -> torch.device:
    return model.predictor.norm.weight.device


def _count(inputs: Any) -> int:
    return len(tree_leaves(inputs)[0])
