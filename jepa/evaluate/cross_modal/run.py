"""Evaluation of two matching streams: which rows to compute, on which samples, with which networks."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from jepa.config import ConfigError
from jepa.data import seeded
from jepa.evaluate.cross_modal.gain import cross_modal_gain
from jepa.evaluate.cross_modal.geometry import geometry
from jepa.evaluate.cross_modal.rows import (
    NEAR_MISS,
    class_embeddings,
    main_similarity,
    near_miss_rows,
    retrieval_rows,
    row_names,
    zero_shot_row,
    zero_shot_tasks,
)
from jepa.evaluate.cross_modal.samples import EncodedByColumn, PairReader
from jepa.evaluate.cross_modal.vectors import StreamEncoder
from jepa.evaluate.features import Column, samples_at_once
from jepa.evaluate.reading import evaluated_indices
from jepa.evaluate.setup import EvaluationSetup, is_part_of
from jepa.evaluate.table import Row
from jepa.matching import MatchedModality
from jepa.modality import Samples
from jepa.weights.load import model_of, untrained_model

OnBad = Callable[[list[tuple[str, str]]], None]


def possible_stream_rows(setup: EvaluationSetup) -> list[str]:
    """Rows of two matching streams, and the near misses requested: samples must be read to know which kinds exist."""
    if not isinstance(setup.modality, MatchedModality):
        return []
    return [*row_names(setup.modality, setup.config), *_requested_near_misses(setup)]


def _requested_near_misses(setup: EvaluationSetup) -> list[str]:
    return [name for name in setup.requested if name.partition("/")[0] == NEAR_MISS]


def has_stream_rows(setup: EvaluationSetup) -> bool:
    """Whether the modality has two matching streams, and some of their rows are requested."""
    return any(map(setup.wants, possible_stream_rows(setup)))


def evaluate_streams(
    setup: EvaluationSetup, samples: Samples, notes: list[str], on_bad: OnBad
) -> tuple[dict[str, Row], dict[str, Any]]:
    """Rows of the results, and the `streams` section; adds notes on what is not measured.

    Raises ConfigError if the requested near misses are of a kind that no sample has.
    """
    modality, config = setup.modality, setup.config
    assert isinstance(modality, MatchedModality)
    assert setup.checkpoint is not None
    if obstacle := _obstacle(setup, samples):
        notes.append(f"Retrieval between the streams is not measured: {obstacle}.")
        return {}, {}
    model = model_of(setup.checkpoint, config, modality).to(setup.device)
    bf16 = config.compute.uses_bf16(setup.device.type)
    encoders = {
        column: StreamEncoder(networks, modality, config.evaluated_encoder, bf16)
        for column, networks in (("jepa", model), ("random_init", untrained_model(config, modality).to(setup.device)))
    }
    at_once = max(1, samples_at_once(modality, config.evaluate.batch_size) // 4)  # each sample has several views
    loaders = config.compute.loaders(setup.device)
    reader = PairReader(modality, encoders, zero_shot_tasks(modality), at_once, loaders, on_bad)
    order = evaluated_indices(len(samples), config.evaluate.test_samples, "test")
    encoded, labels = reader.read(samples, order)
    if not encoded:
        return {}, {}
    rows = _rows(setup, encoded, labels, encoders)
    if setup.requested:
        return rows, {}
    names = [stream.name for stream in modality.streams]
    streams = {"names": names, **geometry(encoded, modality, main_similarity(config))}
    limit = config.evaluate.gain_samples
    if limit and config.loss.prediction_weight > 0 and modality.gain_masks(1, seeded("gain", 0)) is not None:
        streams["gain"] = cross_modal_gain(model, modality, config, samples, order[:limit], on_bad)
    elif limit:
        reason = "the run was not trained both with and without it"
        notes.append(f"How much the {names[1]} helps is not measured: {reason}.")
    return rows, streams


def _obstacle(setup: EvaluationSetup, samples: Samples) -> str:
    """Why nothing can be measured; empty if it can."""
    if not len(samples):
        return "the scored split has no samples"
    if not setup.on_trained_grid:
        return "that needs the token grid of training"
    return "" if "latent" in setup.config.target_kinds else "the run did not predict representations"


def _rows(
    setup: EvaluationSetup, encoded: EncodedByColumn, labels: Tensor, encoders: Mapping[Column, StreamEncoder]
) -> dict[str, Row]:
    modality, config = setup.modality, setup.config
    assert isinstance(modality, MatchedModality)
    similarity = main_similarity(config)
    wanted = [name for name in row_names(modality, config) if setup.wants(name)]
    rows = retrieval_rows(encoded, modality, config, wanted)
    for number, task in enumerate(zero_shot_tasks(modality)):
        name = f"{task.label}/zero_shot"
        if name in wanted and labels[:, number].isfinite().any():
            found = {column: class_embeddings(one, modality, task, similarity) for column, one in encoders.items()}
            classes = {column: vectors for column, (vectors, _) in found.items()}
            rows[name] = zero_shot_row(encoded, classes, labels[:, number], found["jepa"][1], similarity)
    near_misses = near_miss_rows(encoded, similarity, setup.wants)
    for request in _requested_near_misses(setup):
        if not any(is_part_of(name, request) for name in near_misses):
            kinds = ", ".join(f"{NEAR_MISS}/{kind}" for kind in encoded["jepa"].near_misses) or "none"
            raise ConfigError(f"no task '{request}'; near misses of these samples: {kinds}")
    return rows | near_misses
