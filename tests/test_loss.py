"""Losses by hand, regularisers against NumPy, and signs of collapse on representations whose state is known."""

import dataclasses
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from jepa.collapse import collapse_signs, rankme
from jepa.loss import LossConfig, contrast_loss, prediction_loss, regularisation, total_loss
from jepa.model import ContrastPair, ContrastScale, Output, Pair, Prediction
from jepa.regularisers import sigreg, vicreg, visreg

LATENT = {"latent": 1.0}


def prediction(predicted: Tensor, target: Tensor) -> Prediction:
    return Prediction({"latent": Pair(predicted, target)}, {"tokens": torch.zeros(len(predicted), 4)})


def pooled(count: int) -> list[Prediction]:
    return [Prediction({}, {"tokens": torch.randn(16, 4)}) for _ in range(count)]


def generator() -> Generator:
    return Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("l1", (0.5 + 3.0) / 4),
        ("l2", (0.25 + 9.0) / 4),
        ("smooth_l1", (0.5 * 0.25 + (3.0 - 0.5)) / 4),  # quadratic below 1, linear above
    ],
)
def test_prediction_losses_have_the_values_computed_by_hand(kind: str, expected: float) -> None:
    predicted, target = torch.tensor([[[[1.0, 2.0, -1.0, 0.0]]]]), torch.tensor([[[[1.5, 2.0, 2.0, 0.0]]]])
    assert float(prediction_loss([prediction(predicted, target)], LossConfig(distance=kind), LATENT)) == pytest.approx(
        expected
    )


def test_every_set_of_masks_has_the_same_weight_whatever_its_number_of_targets() -> None:
    few, many = torch.full((2, 1, 3, 8), 2.0), torch.full((2, 4, 5, 8), 4.0)
    both = [prediction(few, torch.zeros_like(few)), prediction(many, torch.zeros_like(many))]
    assert float(prediction_loss(both, LossConfig(distance="l1"), LATENT)) == pytest.approx(3.0)


def test_normalised_predictions_are_compared_without_their_mean_and_scale() -> None:
    predicted, target = torch.randn(2, 3, 4, 16), torch.randn(2, 3, 4, 16)
    config = LossConfig(distance="l2", normalise_prediction=True)
    values = predicted.numpy()
    centred = values - values.mean(-1, keepdims=True)
    expected = np.square(centred / np.sqrt(values.var(-1, keepdims=True) + 1e-5) - target.numpy()).mean()
    assert float(prediction_loss([prediction(predicted, target)], config, LATENT)) == pytest.approx(
        float(expected), rel=1e-5
    )
    moved = prediction_loss([prediction(7 * predicted + 3, target)], config, LATENT)
    assert float(moved) == pytest.approx(float(expected), rel=1e-3)


def test_kinds_of_target_have_their_weights_and_pixels_are_never_normalised() -> None:
    pairs = {kind: Pair(torch.randn(2, 1, 3, 1, 8), torch.randn(2, 1, 3, 1, 8)) for kind in ("pixels", "latent")}
    sets, config = (
        [Prediction(pairs, {"tokens": torch.zeros(2, 4)})],
        LossConfig(distance="l2", normalise_prediction=True),
    )
    latent, pixels = (float(prediction_loss(sets, config, {kind: 1.0})) for kind in ("latent", "pixels"))
    assert pixels == pytest.approx(float((pairs["pixels"].predicted - pairs["pixels"].target).square().mean()))
    assert latent != pytest.approx(float((pairs["latent"].predicted - pairs["latent"].target).square().mean()))
    both = prediction_loss(sets, config, {"pixels": 0.5, "latent": 2.0})
    assert float(both) == pytest.approx(0.5 * pixels + 2.0 * latent)


def test_losses_are_computed_in_full_precision() -> None:
    predicted = prediction(torch.ones(1, 1, 1, 8, dtype=torch.bfloat16), torch.full((1, 1, 1, 8), 1.001))
    assert float(prediction_loss([predicted], LossConfig(distance="l1"), LATENT)) == pytest.approx(0.001, rel=1e-3)


def test_vicreg_equals_its_formula_in_numpy() -> None:
    features = torch.randn(50, 6) @ torch.randn(6, 6) * 0.4
    covariance = np.cov(features.numpy().astype(np.float64), rowvar=False)
    variance_term = np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
    covariance_term = (np.square(covariance).sum() - np.square(np.diag(covariance)).sum()) / 6
    assert variance_term > 0.01
    assert float(vicreg(features)) == pytest.approx(variance_term + covariance_term / 25, rel=1e-4)


def test_sigreg_equals_its_integral_in_numpy() -> None:
    features, slices = torch.randn(40, 5) * 2 + 1, 300
    directions = torch.randn(5, slices, generator=generator()).numpy().astype(np.float64)
    projected = features.numpy() @ (directions / np.linalg.norm(directions, axis=0))
    t = np.linspace(-3, 3, 33)
    empirical = np.exp(1j * projected[:, :, None] * t).mean(axis=0)
    integrand = np.abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    expected = ((integrand[:, 1:] + integrand[:, :-1]) / 2).sum(axis=-1).mean() * (t[1] - t[0])
    assert float(sigreg(features, generator(), slices=slices)) == pytest.approx(expected, rel=1e-4)


def test_sigreg_is_small_for_a_standard_normal_and_larger_for_everything_else() -> None:
    normal = torch.randn(4000, 8)
    value = float(sigreg(normal, generator()))
    assert value < 1e-3
    halves = torch.randn(4000, 8) * 0.2 + torch.randint(2, (4000, 1)) * 4
    for other in (torch.zeros(4000, 8), 3 * normal, normal + 1, normal[:, :1].expand(-1, 8), halves):
        assert float(sigreg(other, generator())) > 10 * value


def test_sigreg_does_not_depend_on_the_number_of_samples() -> None:
    features = torch.rand(32, 8)
    repeated = sigreg(features.repeat(8, 1), generator())
    torch.testing.assert_close(repeated, sigreg(features, generator()))


def test_visreg_equals_its_three_terms_in_numpy() -> None:
    features, slices = torch.randn(40, 5) * 2 + 1, 300
    directions = torch.randn(5, slices, generator=generator()).numpy().astype(np.float64)
    values = features.numpy().astype(np.float64)
    standardised = (values - values.mean(axis=0)) / values.std(axis=0)
    projected = np.sort(standardised @ (directions / np.linalg.norm(directions, axis=0)), axis=0)
    normal = np.array([NormalDist().inv_cdf((place + 0.5) / 40) for place in range(40)])
    shape = np.square(projected - normal[:, None]).mean()
    expected = np.square(values.mean(axis=0)).mean() + np.square(1 - values.std(axis=0)).mean() + shape
    assert float(visreg(features, generator(), slices=slices)) == pytest.approx(expected, rel=1e-4)


def test_visreg_is_small_for_a_standard_normal_and_larger_for_everything_else() -> None:
    normal = torch.randn(4000, 8)
    value = float(visreg(normal, generator()))
    assert value < 5e-3
    halves = torch.randn(4000, 8) * 0.2 + torch.randint(2, (4000, 1)) * 4
    others = (torch.zeros(4000, 8), 3 * normal, normal + 1, normal[:, :1].expand(-1, 8), halves, torch.rand(4000, 8))
    for other in others:
        assert float(visreg(other, generator())) > 10 * value
    torch.testing.assert_close(visreg(normal[torch.randperm(4000)], generator()), visreg(normal, generator()))


def test_at_collapse_the_gradient_of_visreg_stays_alive_and_that_of_sigreg_vanishes() -> None:
    spread = torch.randn(64, 8) / 64**0.5
    spread -= spread.mean(dim=0)

    def growth(regulariser: Callable[[Tensor, Generator], Tensor], scale: float) -> float:
        """How fast the regulariser falls when features that vary by `scale` grow apart."""
        features = (spread * scale).requires_grad_()
        regulariser(features, generator()).backward()
        assert features.grad is not None
        return -float((features.grad * spread).sum())

    assert growth(visreg, 1e-3) > 0.5 * growth(visreg, 0.1) > 0
    assert 0 < growth(sigreg, 1e-3) < 0.05 * growth(sigreg, 0.1)
    constant = torch.ones(16, 8, requires_grad=True)  # all inputs alike
    visreg(constant, generator()).backward()
    assert constant.grad is not None
    assert constant.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["vicreg", "sigreg", "visreg"])
def test_a_regulariser_spreads_collapsed_features_out(kind: str) -> None:
    features = (torch.randn(64, 1) @ torch.randn(1, 4) * 0.1 + 5).requires_grad_()
    config = LossConfig(regulariser=kind, regulariser_weight=1.0)
    optimizer = torch.optim.Adam([features], lr=0.3)
    for _ in range(50):
        optimizer.zero_grad()
        regularisation([Prediction({}, {"tokens": features})], config, generator()).backward()
        optimizer.step()
    assert rankme((features - features.mean(dim=0)).detach()) > 2.5
    assert features.detach().std(dim=0).min() > 0.7


def test_the_regulariser_is_weighted_and_averaged_over_sets_of_masks() -> None:
    sets = pooled(2)
    expected = 0.3 * sum(vicreg(one.pooled["tokens"]) for one in sets) / 2
    config = LossConfig(regulariser="vicreg", regulariser_weight=0.3)
    torch.testing.assert_close(regularisation(sets, config, generator()), expected)
    assert float(regularisation(sets, LossConfig(), generator())) == 0.0


def test_invariance_is_the_variance_between_the_masked_views_of_a_sample() -> None:
    sets = pooled(3)
    values = np.stack([one.pooled["tokens"].numpy() for one in sets])
    plain = LossConfig(regulariser="vicreg", regulariser_weight=0.3)
    bound = dataclasses.replace(plain, invariance=2.0)
    difference = regularisation(sets, bound, generator()) - regularisation(sets, plain, generator())
    assert float(difference) == pytest.approx(0.3 * 2.0 * values.var(axis=0, ddof=1).mean(), rel=1e-5)
    torch.testing.assert_close(
        regularisation(sets[:1], bound, generator()), regularisation(sets[:1], plain, generator())
    )


def test_streams_are_regularised_separately_and_agreement_is_added_by_its_weight() -> None:
    one, two, other = torch.randn(16, 4), torch.randn(16, 4), torch.randn(16, 4)
    sets = [Prediction({}, {"first": one, "second": other}), Prediction({}, {"first": two})]
    apart = ((one - other).square().mean() + (two - other).square().mean()) / 2
    for agreement in (0.0, 2.0):
        config = LossConfig(regulariser="vicreg", regulariser_weight=0.3, agreement=agreement)
        expected = 0.3 * ((vicreg(one) + vicreg(two)) / 2 + vicreg(other) + agreement * apart)
        torch.testing.assert_close(regularisation(sets, config, generator()), expected)


def contrast_pair(kind: str) -> ContrastPair:
    scale = ContrastScale(kind)  # type: ignore[arg-type]
    return ContrastPair((torch.randn(12, 8), torch.randn(12, 8)), scale.log_scale.exp(), scale.shift)


def test_contrasts_equal_those_of_open_clip() -> None:
    """Includes the initial temperature and shift, which open_clip takes from the two papers."""
    from open_clip.loss import ClipLoss, SigLipLoss

    pairs = contrast_pair("infonce")
    first, second = (torch.nn.functional.normalize(rows, dim=-1) for rows in pairs.streams)
    expected = ClipLoss()(first, second, torch.tensor(1 / 0.07))
    torch.testing.assert_close(contrast_loss(pairs, "infonce"), expected)
    pairs = contrast_pair("sigmoid")
    first, second = (torch.nn.functional.normalize(rows, dim=-1) for rows in pairs.streams)
    expected = SigLipLoss()(first, second, torch.tensor(10.0), torch.tensor(-10.0))
    torch.testing.assert_close(contrast_loss(pairs, "sigmoid"), expected)


def test_a_contrast_is_added_by_its_weight_and_its_temperature_can_leave_its_bound() -> None:
    pairs = contrast_pair("infonce")
    output = Output([Prediction({}, {"first": pairs.streams[0]})], pairs)
    config = LossConfig(contrast_weight=0.5, prediction_weight=2)
    total = total_loss(torch.tensor(3.0), output, config, "infonce", generator())
    torch.testing.assert_close(total, 6 + 0.5 * contrast_loss(pairs, "infonce"))
    scale = ContrastScale("infonce")
    with torch.no_grad():
        scale.log_scale.fill_(9.0)
    scale.clamp()
    assert scale()[0].item() == pytest.approx(100)
    contrast_loss(pairs._replace(scale=scale()[0]), "infonce").backward()
    assert scale.log_scale.grad is not None
    assert scale.log_scale.grad > 0  # among random vectors colder is worse


def test_identical_representations_of_all_inputs_are_a_collapse() -> None:
    signs = collapse_signs(torch.randn(1, 10, 32).expand(7, -1, -1))
    assert signs.target_std == pytest.approx(0.0, abs=1e-6)
    assert signs.rankme == pytest.approx(1.0)
    assert signs.cosine == pytest.approx(1.0)


def test_tokens_that_differ_by_position_only_are_a_collapse() -> None:
    signs = collapse_signs(torch.randn(1, 10, 32) + 1e-3 * torch.randn(6, 10, 32))
    assert signs.target_std < 0.01
    assert "representations barely differ between inputs (std 0.001, healthy above 0.3)" in signs.warning()
    assert "representations of all inputs are nearly parallel (mean cosine 1.000)" in signs.warning()
    assert signs.warning(remedies=["a", "b"]).endswith("(mean cosine 1.000); try a, or b")


def test_tokens_that_vary_along_one_direction_are_a_collapse_of_dimensions() -> None:
    signs = collapse_signs(torch.randn(64, 10, 1) * torch.randn(32))
    assert signs.target_std > 0.5
    assert signs.rankme < 2
    assert signs.warning().startswith("signs of collapse: they vary in only 1.")
    assert "they vary" not in signs.warning(samples=4)


def test_independent_tokens_are_no_collapse() -> None:
    signs = collapse_signs(torch.randn(64, 10, 32))
    assert signs.target_std == pytest.approx(1.0, abs=0.05)
    assert signs.rankme > 28
    assert abs(signs.cosine) < 0.05
    assert signs.warning() == ""


def test_the_cosine_is_the_mean_over_pairs_of_different_inputs() -> None:
    tokens = torch.randn(5, 4, 16) + 1
    normed = torch.nn.functional.layer_norm(tokens, (16,))
    pooled = normed.mean(dim=1)
    pairs = [torch.cosine_similarity(pooled[i], pooled[j], dim=0) for i in range(5) for j in range(i)]
    assert collapse_signs(tokens).cosine == pytest.approx(float(sum(pairs)) / len(pairs), abs=1e-5)


@pytest.mark.parametrize("shape", [(100, 8), (5, 8)])
def test_rankme_is_the_exponential_of_the_entropy_of_the_singular_values(shape: tuple[int, int]) -> None:
    features = torch.randn(shape) * torch.logspace(0, -2, 8)
    singular = np.linalg.svd(features.numpy().astype(np.float64), compute_uv=False)
    shares = singular / singular.sum()
    assert rankme(features) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-5)


def test_rankme_counts_equal_directions() -> None:
    assert rankme(torch.eye(8)[:3].repeat(4, 1)) == pytest.approx(3.0, rel=1e-6)
