"""Probes of frozen features: fitted on train, settings chosen on validation, scored on test."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.evaluate.splits import Examples, Splits

NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07  # of the neighbours' votes (Wu et al. 2018)
C_GRID = tuple(10.0**power for power in range(-5, 4))  # inverse strength of the L2 penalty, as scikit-learn's C
ALPHA_GRID = tuple(10.0**power for power in range(-3, 8))  # strength of the L2 penalty, as scikit-learn's alpha
_PATIENCE = 2  # after this many settings in a row worse than the best, larger C are not tried
_ITERATIONS = 300
_HISTORY = 10  # of L-BFGS: torch's default of 100 saves hardly an iteration, at ten times the operations of each
_QUERIES = 512


@dataclass(frozen=True)
class Outcome:
    """Test score, and the setting chosen on the validation split."""

    score: float
    setting: float


def best_setting(settings: Sequence[float], scores: Sequence[float], higher_is_better: bool) -> int:
    """Index of the best validation score, the first of equal ones."""
    values = [score if higher_is_better else -score for score in scores]
    return values.index(max(values))


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of samples whose label has the highest score: [n, K], [n] -> 0..1."""
    return float((scores.argmax(dim=1) == labels).double().mean())


def root_mean_square_error(predicted: Tensor, labels: Tensor) -> float:
    """[n], [n] -> scalar."""
    return float((predicted - labels).double().square().mean().sqrt())


def knn(examples: Splits[Examples], classes: int) -> Outcome:
    """Cosine k nearest neighbours, votes weighted by exp(cosine / 0.07) (Wu et al. 2018) -> test accuracy and k."""
    settings = [k for k in NEIGHBOURS if k <= len(examples.train)]
    votes = _votes(examples.train, examples.validation.features, settings, classes)
    scores = [accuracy(vote, examples.validation.labels) for vote in votes]
    k = settings[best_setting(settings, scores, higher_is_better=True)]
    vote = _votes(examples.train, examples.test.features, [k], classes)[0]
    return Outcome(accuracy(vote, examples.test.labels), k)


def knn_accuracy(train: Examples, queries: Examples, classes: int, neighbours: int) -> float:
    """Accuracy of the same vote of so many neighbours, or of all if there are fewer."""
    k = min(neighbours, len(train))
    return accuracy(_votes(train, queries.features, [k], classes)[0], queries.labels)


def _votes(train: Examples, queries: Tensor, neighbours: Sequence[int], classes: int) -> list[Tensor]:
    """Votes for each class, one table per number of neighbours: queries [q, F] -> [q, K] each."""
    keys = F.normalize(train.features, dim=1)
    parts: list[list[Tensor]] = [[] for _ in neighbours]
    for chunk in F.normalize(queries, dim=1).split(_QUERIES):
        nearest = (chunk @ keys.T).topk(max(neighbours), dim=1)
        weights = ((nearest.values - 1) / TEMPERATURE).exp()
        labels = train.labels[nearest.indices]
        for part, k in zip(parts, neighbours, strict=True):
            part.append(weights.new_zeros(len(chunk), classes).scatter_add_(1, labels[:, :k], weights[:, :k]))
    return [torch.cat(part) for part in parts]


def on_principal_axes(features: Splits[Tensor]) -> Splits[Tensor]:
    """Standardise by the training split and rotate to its principal axes: [n, F] -> [n, F or fewer].

    An L2 penalty is invariant to rotation, so a linear probe has the same optimum as on the standardised features. On
    these axes its Hessian is nearly diagonal, so that a few steps find the optimum.
    """
    deviation = features.train.std(dim=0, correction=0)
    varies = deviation > 1e-6 * deviation.max()  # constant features say nothing; dropped, they change no rounding
    varying, scale = features.map(lambda split: split[:, varies]), deviation[varies]
    mean = varying.train.mean(dim=0)
    standard = varying.map(lambda split: (split - mean) / scale)
    axes = _principal_axes(standard.train)
    return standard.map(lambda split: split @ axes)


def _principal_axes(features: Tensor) -> Tensor:
    """Orthonormal axes that span centred features, largest variance first: [n, F] -> columns [F, min(n, F)]."""
    if features.shape[1] <= len(features):
        axes: Tensor = torch.linalg.eigh(features.T @ features).eigenvectors
        return axes.flip(-1)
    among_samples: Tensor = torch.linalg.eigh(features @ features.T).eigenvectors
    spanning: Tensor = torch.linalg.qr(features.T @ among_samples.flip(-1)).Q
    return spanning


def ridge(examples: Splits[Examples]) -> Outcome:
    """Ridge regression on principal axes -> root mean square test error and alpha."""
    features, labels = examples.train.features, examples.train.labels
    centre, offset = features.mean(dim=0), labels.mean()
    squares = (features - centre).square().sum(dim=0)  # [F]; the Gram matrix is diagonal
    products = (features - centre).T @ (labels - offset)  # [F]
    weights = torch.stack([products / (squares + alpha) for alpha in ALPHA_GRID], dim=1)  # [F, settings]

    def error(split: Examples, setting: int) -> float:
        return root_mean_square_error((split.features - centre) @ weights[:, setting] + offset, split.labels)

    scores = [error(examples.validation, setting) for setting in range(len(ALPHA_GRID))]
    chosen = best_setting(ALPHA_GRID, scores, higher_is_better=False)
    return Outcome(error(examples.test, chosen), ALPHA_GRID[chosen])


def linear_probe(examples: Splits[Examples], classes: int) -> Outcome:
    """Multinomial logistic regression -> test accuracy and C. Fastest on principal axes.

    C grows, and each fit starts from the last one, until validation accuracy is below its best twice in a row.
    """
    weights = examples.train.features.new_zeros(classes, examples.train.features.shape[1] + 1)
    fits: list[Tensor] = []
    scores: list[float] = []
    for c in C_GRID:
        weights = fit_logistic(examples.train, c, weights)
        fits.append(weights)
        scores.append(accuracy(logits(weights, examples.validation.features), examples.validation.labels))
        if all(score < max(scores) for score in scores[-_PATIENCE:]):
            break
    chosen = best_setting(C_GRID, scores, higher_is_better=True)
    return Outcome(accuracy(logits(fits[chosen], examples.test.features), examples.test.labels), C_GRID[chosen])


def logits(weights: Tensor, features: Tensor) -> Tensor:
    """Weights [K, F + 1], the last column the bias, features [n, F] -> [n, K]."""
    return features @ weights[:, :-1].T + weights[:, -1]


def fit_logistic(examples: Examples, c: float, start: Tensor) -> Tensor:
    """Minimise the sum of cross-entropies + ||W||^2 / (2 C), without a penalty on the bias: weights [K, F + 1]."""
    count, classes = len(examples), len(start)
    features = F.pad(examples.features, (0, 1), value=1.0)  # [n, F + 1]
    columns = features.T.contiguous()  # makes the product twice as fast
    rows = torch.arange(count, device=features.device)
    penalty = torch.full_like(start[0], 1 / (c * count))
    penalty[-1] = 0
    # Scaling each coordinate by its curvature at zero weights makes all curvatures similar.
    scale = (features.square().mean(dim=0) / classes + penalty).rsqrt()
    scaled = start / scale
    optimizer = torch.optim.LBFGS(
        [scaled],
        max_iter=_ITERATIONS,
        history_size=_HISTORY,
        tolerance_grad=1e-5,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        weights = scaled * scale
        losses = -(weights @ columns).log_softmax(dim=0)  # [K, n]
        gradient = (-losses).exp()
        gradient[examples.labels, rows] -= 1
        scaled.grad = scale * (gradient @ features / count + penalty * weights)
        return losses[examples.labels, rows].mean() + (penalty * weights.square()).sum() / 2

    optimizer.step(closure)
    return scaled * scale


def low_shot(examples: Splits[Examples], classes: int, draws: Sequence[Tensor]) -> list[Outcome]:
    """`linear_probe` fitted on each draw of a few training examples; a draw holds row numbers of the training split."""
    outcomes = []
    for rows in draws:
        few = examples.train[rows.to(examples.train.labels.device)]
        # Weights of an L2-penalised probe lie in the span of its training features, so their few axes suffice.
        axes = _principal_axes(few.features)
        projected = Splits(few, examples.validation, examples.test).map(lambda split: split.projected(axes))  # noqa: B023
        outcomes.append(linear_probe(projected, classes))
    return outcomes
