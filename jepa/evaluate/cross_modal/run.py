"""Evaluation of two streams that match: which rows are measured, on which samples, by which networks."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from jepa.config import ConfigError
from jepa.data import seeded
from jepa.evaluate.cross_modal.gain import gain
from jepa.evaluate.cross_modal.geometry import geometry
from jepa.evaluate.cross_modal.rows import (
    NEAR_MISS,
    Row,
    class_vectors,
    is_wanted,
    main_way,
    named_row,
    near_miss_rows,
    retrieval_rows,
    row_names,
    zero_shot_tasks,
)
from jepa.evaluate.cross_modal.samples import Reader, Seen
from jepa.evaluate.cross_modal.vectors import StreamEncoder
from jepa.evaluate.features import Column, samples_at_once
from jepa.evaluate.reading import evaluated_indices
from jepa.evaluate.setup import Subject
from jepa.matching import MatchedModality
from jepa.modality import Samples
from jepa.weights.load import model_of, untrained_model

OnBad = Callable[[list[tuple[str, str]]], None]


def is_asked(subject: Subject) -> bool:
    """Whether there are two streams that match, and something about them is asked for."""
    modality = subject.modality
    return isinstance(modality, MatchedModality) and (not subject.asked or _asked_rows(subject, modality))


def _asked_rows(subject: Subject, modality: MatchedModality[Any]) -> bool:
    names = [*row_names(modality, subject.config), *(one for one in subject.asked if one.startswith(NEAR_MISS))]
    return any(is_wanted(name, subject.asked) for name in names)


def measure_matched(
    subject: Subject, samples: Samples, notes: list[str], on_bad: OnBad
) -> tuple[dict[str, Row], dict[str, Any]]:
    """Rows of the table, and the `streams` section of results.json; notes on what is not measured.

    Raises ConfigError where near misses of a kind are asked for that no sample has.
    """
    modality, config = subject.modality, subject.config
    assert isinstance(modality, MatchedModality)
    if trouble := _trouble(subject, samples):
        notes.append(f"Whether the streams find one another is not measured: {trouble}.")
        return {}, {}
    model = model_of(subject.checkpoint, config, modality).to(subject.device)
    matchers = {
        column: StreamEncoder(networks, modality, config.evaluate.encoder, config.compute.precision == "bf16")
        for column, networks in (("jepa", model), ("random_init", untrained_model(config, modality).to(subject.device)))
    }
    at_once = max(1, samples_at_once(modality, config.evaluate.batch_size) // 4)  # several views of each
    tasks = zero_shot_tasks(modality)
    reader = Reader(modality, matchers, tasks, at_once, config.compute.loaders(subject.device), on_bad)
    order = evaluated_indices(len(samples), config.evaluate.test_samples, "test")
    seen, labels = reader.read(samples, order)
    if not seen:
        return {}, {}
    rows = _rows(subject, seen, labels, matchers)
    if subject.asked:
        return rows, {}
    streams = {"names": [stream.name for stream in modality.streams], **geometry(seen, modality, main_way(config))}
    limit = config.evaluate.gain_samples
    learned = config.loss.prediction_weight > 0 and modality.gain_masks(1, seeded("gain", 0)) is not None
    if limit and learned:
        streams["gain"] = gain(model, modality, config, samples, order[:limit], on_bad)
    elif limit:
        notes.append("How much the second stream helps is not measured: the run did not learn with and without it.")
    return rows, streams


def _trouble(subject: Subject, samples: Samples) -> str:
    """Why nothing can be measured, in words; empty where it can."""
    if not len(samples):
        return "the scored split has no samples"
    if not subject.on_trained_grid:
        return "that needs the token grid of the training"
    return "" if "latent" in subject.config.target_kinds else "the run learned to predict values"


def _rows(
    subject: Subject, seen: Mapping[Column, Seen], labels: Tensor, matchers: Mapping[Column, StreamEncoder]
) -> dict[str, Row]:
    modality, config, asked = subject.modality, subject.config, subject.asked
    assert isinstance(modality, MatchedModality)
    way = main_way(config)
    wanted = [name for name in row_names(modality, config) if is_wanted(name, asked)]
    rows = retrieval_rows(seen, modality, config, wanted)
    for number, task in enumerate(zero_shot_tasks(modality)):
        name = f"{task.label}/zero_shot"
        if name in wanted and labels[:, number].isfinite().any():
            told = {column: class_vectors(matcher, modality, task, way) for column, matcher in matchers.items()}
            classes = {column: vectors for column, (vectors, _) in told.items()}
            rows[name] = named_row(seen, classes, labels[:, number], told["jepa"][1], way)
    found = near_miss_rows(seen, way, lambda name: is_wanted(name, asked))
    for one in asked:
        if one.startswith(NEAR_MISS) and not any(is_wanted(name, [one]) for name in found):
            kinds = ", ".join(f"{NEAR_MISS}/{kind}" for kind in seen["jepa"].near) or "none"
            raise ConfigError(f"no task '{one}'; near misses of these samples: {kinds}")
    return rows | found
