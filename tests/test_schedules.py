"""Schedules against values computed by hand, and their effect on the optimiser."""

import math
from itertools import pairwise

import pytest
import torch
from tiny import MODEL, Noise, NoiseConfig
from torch import nn

from jepa.config import ConfigError
from jepa.model import JEPA
from jepa.optim import OptimConfig, RateFactor, build_optimizer, set_schedule
from jepa.schedules import Decay, cosine, warmed_up
from jepa.training.teachers import EmaTeacher, HalfLifeTeacher, SnapshotTeacher, target_update


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.1), (5, 0.55), (10, 1.0), (55, 0.6), (100, 0.2), (32.5, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2), (500, 0.2)],
)
def test_the_learning_rate_rises_linearly_and_falls_as_a_half_cosine(step: int, expected: float) -> None:
    assert warmed_up(step, 100, 10, (0.1, 1.0, 0.2), "cosine") == pytest.approx(expected)


def test_other_decays_are_linear_or_constant_and_a_run_may_end_before_its_schedule() -> None:
    ends, steps = (0.0, 1.0, 0.2), (10, 60, 100)
    assert [warmed_up(step, 100, 20, ends, "linear") for step in steps] == pytest.approx([0.5, 0.6, 0.2])
    assert [warmed_up(step, 100, 20, ends, "constant") for step in steps] == pytest.approx([0.5, 1.0, 1.0])
    optimizer = build_optimizer(nn.Linear(3, 3), OptimConfig())
    longer = OptimConfig(peak_lr=1.0, final_lr=0.0, warmup=0.1, decay="linear", schedule_length=1.9)
    rates = [set_schedule(optimizer, step, 100, longer) for step in (4, 10, 100)]  # the warm-up is not stretched
    assert rates == pytest.approx([0.5, 1.0, 0.5])


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.001, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_the_learning_rate_stays_within_its_range_for_any_length_and_warmup(
    steps: int, warmup: float, decay: Decay
) -> None:
    rates = [warmed_up(step, steps, warmup * steps, (0.0, 1.0, 0.1), decay) for step in range(steps + 1)]
    assert all(0 <= rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_cosine_is_at_its_middle_value_after_half_of_the_steps() -> None:
    assert [cosine(step, 8, 0.04, 0.4) for step in (0, 4, 8, 9)] == pytest.approx([0.04, 0.22, 0.4, 0.4])


def test_the_first_step_has_a_rate_above_that_of_the_start_and_the_warm_up_ends_at_the_peak() -> None:
    """As the schedulers of I-JEPA and V-JEPA, which count a step before they give its rate."""
    for warmup, expected in ((0.4, [0.25, 0.5, 0.75, 1.0, 1.0]), (0.25, [0.4, 0.8, 1.0]), (0.05, [1.0])):
        config = OptimConfig(peak_lr=1.0, warmup=warmup)
        rates = [set_schedule(build_optimizer(nn.Linear(3, 3), config), step, 10, config) for step in range(10)]
        assert rates[: len(expected)] == pytest.approx(expected)
        assert all(one > other for one, other in pairwise(rates[len(expected) - 1 :]))


def test_linear_momentum_is_linear_in_the_step() -> None:
    teacher = EmaTeacher(start=0.99, end=1.0)
    updates = [target_update(step, 5, 2.0, 64, teacher) for step in (0, 5, 10, 11)]
    assert [update.after for update in updates] == pytest.approx([0.99, 0.995, 1.0, 1.0])
    assert all(update.before == 1 for update in updates)


@pytest.mark.parametrize("batch_size", [50, 200])
def test_half_of_the_old_weights_is_left_after_the_half_life(batch_size: int) -> None:
    teacher = HalfLifeTeacher(start_samples=1000.0, end_samples=1000.0)
    kept = [target_update(step, 100, 1.0, batch_size, teacher).after for step in range(1000 // batch_size)]
    assert math.prod(kept) == pytest.approx(0.5)


def test_the_half_life_grows_geometrically() -> None:
    teacher = HalfLifeTeacher(start_samples=100.0, end_samples=10_000.0)
    half_lives = [math.log(0.5) / math.log(target_update(step, 4, 1.0, 10, teacher).after) * 10 for step in range(5)]
    assert half_lives == pytest.approx([100, 100 * 10**0.5, 1000, 1000 * 10**0.5, 10_000])


@pytest.mark.parametrize(("steps", "refreshes", "copies"), [(10, 0, [0]), (10, 4, [0, 2, 4, 6, 8]), (3, 1, [0, 2])])
def test_a_snapshot_is_made_before_the_first_step_and_renewed_at_even_distances(
    steps: int, refreshes: int, copies: list[int]
) -> None:
    updates = [target_update(step, steps, 1.25, 8, SnapshotTeacher(refreshes=refreshes)) for step in range(steps)]
    assert [step for step, update in enumerate(updates) if update.before == 0] == copies
    assert all(update.before in (0, 1) and update.after == 1 for update in updates)


def test_weight_decay_spares_biases_norms_and_the_mask_token() -> None:
    model = JEPA(MODEL, Noise(NoiseConfig()))
    optimizer = build_optimizer(model, OptimConfig())
    set_schedule(optimizer, 0, 10, OptimConfig(weight_decay=0.04))
    decay = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    for name, parameter in model.named_parameters():
        if name.startswith("target_encoder."):
            assert id(parameter) not in decay, "the target encoder learns nothing by gradients"
        else:
            assert decay[id(parameter)] == pytest.approx(0.04 if id(parameter) in matrices else 0.0), name


def test_a_step_sets_all_learning_rates_and_the_decay_of_decayed_weights() -> None:
    config = OptimConfig(peak_lr=1.0, final_lr=0.0, warmup=0.0, weight_decay=0.0, final_weight_decay=0.2)
    optimizer = build_optimizer(nn.Linear(3, 3), config)
    assert set_schedule(optimizer, 5, 10, config) == pytest.approx(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.5])
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.0])


def test_rate_factors_scale_the_learning_rate_of_parts_of_the_networks() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    slower = RateFactor(prefix="0.", factor=0.1), RateFactor(prefix="0.bias", factor=10.0)
    config = OptimConfig(peak_lr=1.0, warmup=0.0, rate_factors=slower, weight_decay=0.5)
    optimizer = build_optimizer(model, config)
    set_schedule(optimizer, 0, 10, config)
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    rates = {name: groups[id(parameter)]["lr"] for name, parameter in model.named_parameters()}
    decays = {name: groups[id(parameter)]["weight_decay"] for name, parameter in model.named_parameters()}
    assert rates == pytest.approx({"0.weight": 0.1, "0.bias": 10.0, "1.weight": 1.0, "1.bias": 1.0})
    assert decays == pytest.approx({"0.weight": 0.5, "0.bias": 0.0, "1.weight": 0.5, "1.bias": 0.0})


def test_a_rate_factor_without_effect_is_refused_and_prefixes_match_whole_names() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))
    model[2].requires_grad_(False)
    one = OptimConfig(rate_factors=(RateFactor(prefix="1", factor=0.5),))
    slow = [group["params"] for group in build_optimizer(model, one).param_groups if group["factor"] == 0.5]
    assert {id(parameter) for parameters in slow for parameter in parameters} == {*map(id, model[1].parameters())}
    for prefixes, words in (
        (["20"], r"rate_factors: .* below '20'; there are 0\.bias, 0\.weight, 1\."),
        (["2"], r"rate_factors: .* below '2'"),
        (["1.bias", "1"], r"rate_factors: later factors override '1\.bias'"),
    ):
        factors = tuple(RateFactor(prefix=prefix, factor=0.1) for prefix in prefixes)
        with pytest.raises(ConfigError, match=words):
            build_optimizer(model, OptimConfig(rate_factors=factors))


def test_decay_without_gradients_shrinks_weights_as_defined_by_build_optimizer() -> None:
    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    config = OptimConfig(peak_lr=0.1, warmup=0.0, weight_decay=0.5, final_weight_decay=0.5)
    optimizer = build_optimizer(layer, config)
    set_schedule(optimizer, 0, 10, config)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    torch.testing.assert_close(layer.bias.detach(), before[1])
