"""Long-range prediction: from what is seen before a cut the representation of each later slot, step after step.

A grid has an axis along which things go on; a slot is what lies at one place of it. Errors are mean squares of
layer-normed representations, as in training, by the number of slots from the last one seen: the horizon. Tokens that a
sample does not have are not attended to, and stand as not a number wherever they would be counted.
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
from jepa.encoder import mean_over
from jepa.evaluate.features import samples_at_once
from jepa.evaluate.reading import Views, evaluated_indices, view_batches
from jepa.masking import Masks
from jepa.modality import Modality, Samples, Split
from jepa.model import JEPA
from jepa.positions import Grid
from jepa.training.config import Config

Course = Literal["direct", "rolled", "repeat", "repeat_centred", "mean"]


@dataclass(frozen=True)
class Cut:
    """A grid cut across an axis into what is seen and what is to come."""

    seen: Tensor  # [Kc] tokens before the cut
    last: Tensor  # [S] tokens of the last slot seen
    slots: list[Tensor]  # [S] tokens of each slot to come, in order

    @property
    def horizons(self) -> int:
        """Slots to come."""
        return len(self.slots)


def cut_grid(grid: Grid, axis: int, share: float) -> Cut:
    """Cut a grid so that this share of the axis is seen, at least one slot, and at least one is to come."""
    place = min(max(1, round(share * grid[axis])), grid[axis] - 1)
    tokens = torch.arange(math.prod(grid)).reshape(grid)
    slots = [slot.flatten().contiguous() for slot in tokens.unbind(axis)]
    return Cut(torch.cat(slots[:place]).sort().values, slots[place - 1], slots[place:])


@dataclass(frozen=True)
class Means:
    """Mean representations over training samples."""

    whole: Tensor  # [N, L, D] of every token, the whole input being seen
    past: Tensor  # [S, L, D] of the last slot before the cut, only what comes before the cut being seen


@dataclass(frozen=True)
class Forecaster:
    """Predicts what comes after a cut. normalise: layer-norm predictions, as the run's loss did."""

    model: JEPA
    cut: Cut
    normalise: bool

    @property
    def rolls(self) -> bool:
        """Whether predictions hold what the predictor takes for context: the encoder's last layer, unmixed."""
        config = self.model.config
        return config.depth in config.target_outputs and (
            config.target_join == "each" or len(config.target_outputs) == 1
        )

    def targets(self, inputs: Any) -> Tensor:
        """What is to come as the target encoder sees it: inputs -> [B, H, S, L, D]."""
        return self.whole(inputs)[:, torch.stack(self.cut.slots)]

    def whole(self, inputs: Any) -> Tensor:
        """All tokens as the target encoder sees them: inputs -> [B, N, L, D]."""
        return _known(self.model.targets(inputs).float(), self.model.target_encoder.present(inputs))

    def past(self, inputs: Any) -> Tensor:
        """The last slot seen, to a target encoder that sees no further: inputs -> [B, S, L, D]."""
        seen = self.cut.seen.to(_device(self.model))
        kept = self.model.targets(inputs, keep=seen.expand(_count(inputs), -1)).float()
        present = self.model.target_encoder.present(inputs)
        known = _known(kept, None if present is None else present[:, seen])
        return known[:, torch.searchsorted(self.cut.seen, self.cut.last)]

    def direct(self, inputs: Any) -> Tensor:
        """All slots to come from what is seen, asked for at once as in training: inputs -> [B, H, S, L, D].

        Asked for one by one they come out worse: queries attend to one another, and have learned in company.
        """
        return self._guess(inputs, self._context(inputs), self.cut.seen, self.cut.slots)

    def rolled(self, inputs: Any) -> Tensor:
        """Slot after slot, each prediction being context for the next: inputs -> [B, H, S, L, D].

        All slots still to come are asked for, the first of them is taken. The predictor takes an encoder's last layer,
        and predicts it layer-normed. What the norm took is given back as tokens of the seen context have it: their
        mean, over the tokens of a sample, of mean and deviation.
        """
        context, known = self._context(inputs), self.cut.seen
        present = self.model.context_encoder.present(inputs)
        there = None if present is None else present[:, known.to(present.device)]
        level = mean_over(context.mean(dim=-1, keepdim=True), there).unsqueeze(1)  # [B, 1, 1]
        spread = mean_over(context.std(dim=-1, correction=0, keepdim=True), there).unsqueeze(1)
        layer = self.model.config.target_outputs.index(self.model.config.depth)
        guesses = []
        for horizon, slot in enumerate(self.cut.slots):
            guesses.append(self._guess(inputs, context, known, self.cut.slots[horizon:])[:, 0])
            last = guesses[-1][:, :, layer]  # [B, S, D]
            context = torch.cat((context, F.layer_norm(last, last.shape[-1:]) * spread + level), dim=1)
            known = torch.cat((known, slot))
        return torch.stack(guesses, dim=1)

    def _context(self, inputs: Any) -> Tensor:
        seen = self.cut.seen.to(_device(self.model)).expand(_count(inputs), -1)
        return self.model.context_encoder(inputs, seen).float()  # type: ignore[no-any-return]

    def _guess(self, inputs: Any, context: Tensor, known: Tensor, slots: Sequence[Tensor]) -> Tensor:
        """Context [B, K, D] at tokens known [K] -> slots [B, H, S, L, D]."""
        hidden = torch.cat(list(slots)).expand(len(context), 1, -1)  # [B, 1, H S]
        masks = Masks(known.expand(len(context), -1), hidden).to(_device(self.model))
        present = self.model.context_encoder.present(inputs)
        guess = self.model.guess(context, masks, present=present)[:, 0].float().unflatten(1, (len(slots), -1))
        return F.layer_norm(guess, guess.shape[-1:]) if self.normalise else guess

    def courses(self, inputs: Any, means: Means) -> dict[Course, Tensor]:
        """Every prediction of what is to come: inputs -> [B, H, S, L, D] each.

        repeat: the last slot seen comes again. repeat_centred: it comes again with its deviation from the mean of its
        slot, on the mean of the later slot. mean: that mean alone.
        """
        mean = means.whole[torch.stack(self.cut.slots)]  # [H, S, L, D]
        past = self.past(inputs).unsqueeze(1)
        direct = self.direct(inputs)
        found: dict[Course, Tensor] = {"direct": direct}
        if self.rolls:
            found["rolled"] = self.rolled(inputs)
        found["repeat"] = past.expand_as(direct)
        found["repeat_centred"] = mean + past - means.past
        found["mean"] = mean.expand_as(direct)
        return found


def can_forecast(modality: Modality[Any], config: Config[Any, Any]) -> bool:
    """Whether something goes on along an axis, and the run learned to predict representations."""
    axis = modality.forecast_axis
    return axis is not None and modality.grid[axis] > 1 and "latent" in config.target_kinds


def forecaster(model: JEPA, modality: Modality[Any], config: Config[Any, Any]) -> Forecaster:
    """Forecasts of a run that can make them."""
    assert modality.forecast_axis is not None
    cut = cut_grid(modality.grid, modality.forecast_axis, config.evaluate.forecast_cut)
    return Forecaster(model, cut, config.loss.normalise_prediction)


def error_maps(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean square errors of tokens: [B, H, S, L, D] twice -> [B, H, S]."""
    return (predicted - target).square().mean(dim=(-2, -1))


@dataclass(frozen=True)
class Source:
    """Batches of inputs of some samples. on_bad: called with what cannot be read."""

    modality: Modality[Any]
    config: Config[Any, Any]
    device: torch.device
    on_bad: Callable[[list[tuple[str, str]]], None]

    def inputs(self, samples: Samples, split: Split) -> Iterator[Any]:
        """Inputs [B, ...] of all samples that are looked at."""
        evaluate = self.config.evaluate
        views = Views(
            self.modality,
            samples,
            evaluated_indices(len(samples), evaluate.forecast_samples, split),
            (),
            averaged=False,
        )
        size, loaders = samples_at_once(self.modality, evaluate.batch_size), self.config.compute.loaders(self.device)
        for batch in view_batches(views, size, loaders):
            self.on_bad(batch.bad)
            if batch.count:
                yield to_device(batch.views[0], self.device)


@torch.inference_mode()
def training_means(caster: Forecaster, samples: Samples, source: Source) -> tuple[Means, int]:
    """Means over training samples, and how many these are."""
    totals, known, count = [torch.zeros(()).double()] * 2, [torch.zeros(())] * 2, 0
    for inputs in source.inputs(samples, "train"):
        values = [part.double().cpu() for part in (caster.whole(inputs), caster.past(inputs))]
        totals = [total + part.nansum(dim=0) for total, part in zip(totals, values, strict=True)]
        known = [number + part.isfinite().sum(dim=0) for number, part in zip(known, values, strict=True)]
        count += _count(inputs)
    divided = [
        (total / number.clamp_min(1)).float().to(source.device) for total, number in zip(totals, known, strict=True)
    ]
    return Means(*divided), count


@torch.inference_mode()
def forecast(caster: Forecaster, train: Samples, held_out: Samples, source: Source) -> dict[str, Any]:
    """The `forecast` section of results.json; empty where no sample can be read."""
    with torch.autocast(source.device.type, torch.bfloat16, enabled=source.config.compute.precision == "bf16"):
        means, taught = training_means(caster, train, source)
        batches = [_errors(caster, inputs, means) for inputs in source.inputs(held_out, "test")] if taught else []
    if not batches:
        return {}
    measured = torch.cat([torch.stack(list(errors.values()), dim=1) for errors in batches])  # [n, courses, H]
    names = list(batches[0])
    mean = measured.nanmean(dim=0)
    spread = (measured - mean).square().nanmean(dim=0).sqrt()
    return {
        "metric": "mse",
        "axis": source.modality.forecast_axis,
        "seen_slots": source.modality.grid[source.modality.forecast_axis or 0] - caster.cut.horizons,
        "horizons": list(range(1, caster.cut.horizons + 1)),
        "errors": dict(zip(names, mean.tolist(), strict=True)),
        "spread": dict(zip(names, spread.tolist(), strict=True)),  # standard deviation over samples
        "train_samples": taught,
        "test_samples": len(measured),
    }


def _errors(caster: Forecaster, inputs: Any, means: Means) -> dict[Course, Tensor]:
    """Mean square errors of samples by the horizon: inputs -> [B, H] each."""
    target = caster.targets(inputs)
    courses = caster.courses(inputs, means)
    return {name: error_maps(course, target).nanmean(dim=-1).cpu() for name, course in courses.items()}


def _known(values: Tensor, present: Tensor | None) -> Tensor:
    """Values of tokens [B, K, ...], not a number where bool [B, K] says that a sample does not have them."""
    return values if present is None else values.masked_fill(~present[:, :, None, None], torch.nan)


def _device(model: JEPA) -> torch.device:
    return model.predictor.norm.weight.device


def _count(inputs: Any) -> int:
    return len(tree_leaves(inputs)[0])
