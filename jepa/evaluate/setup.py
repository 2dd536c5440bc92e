"""What is to be evaluated: networks out of a checkpoint, a config that may depart from theirs, and where results go."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jepa.checkpoint import Checkpoint, latest
from jepa.config import ConfigError, Tree, differences, plain
from jepa.encoder import TokenEncoder
from jepa.evaluate.cross_modal.rows import NEAR_MISS, is_wanted, row_names
from jepa.evaluate.features import Column
from jepa.evaluate.tasks import probe_names
from jepa.matching import MatchedModality
from jepa.modality import Modality, Task
from jepa.positions import grid_positions
from jepa.protocol import check_functions
from jepa.training.config import Config
from jepa.weights.load import configured, encoder_of, read_checkpoint, untrained_encoder

_FREE = ("data.", "evaluate.", "compute.")  # sections that may differ from those of the training
Row = tuple[Task, str]  # a task and one of its probes


@dataclass(frozen=True)
class Subject:
    """What is evaluated, on what, and where the results go."""

    checkpoint: Checkpoint
    config: Config[Any, Any]
    modality: Modality[Any]
    encoders: dict[Column, TokenEncoder]
    rows: list[Row]  # of probes
    asked: Sequence[str]  # tasks and rows by name, all where empty
    output: Path
    on_trained_grid: bool

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.encoders["jepa"].device


def open_subject(path: Path, tasks: Sequence[str], layers: list[Tree]) -> Subject:
    """Load the networks; raises ConfigError where the overrides do not fit them."""
    checkpoint = read_checkpoint(path)
    trained_config, trained_modality = configured(checkpoint)
    config, modality = configured(checkpoint, layers)
    changed = differences(plain(trained_config), plain(config))
    for line in changed:
        if not line.startswith(_FREE):
            raise ConfigError(f"evaluation cannot change {line}; it can change data, evaluate and compute")
    if config.evaluate.functions != trained_config.evaluate.functions:  # others were looked at before the training
        check_functions(config.evaluate.functions)
    try:
        trained = encoder_of(checkpoint, config, modality, config.evaluate.encoder)
    except RuntimeError as error:
        raise ConfigError(
            f"the encoder of {path} does not fit this data section: {str(error).splitlines()[-1]}"
        ) from error
    untrained = untrained_encoder(trained_config, trained_modality)
    if modality.grid != trained_modality.grid:
        untrained.place(grid_positions(modality.grid, trained_modality.grid))
    device = torch.device("cuda" if torch.cuda.is_available() and config.compute.device != "cpu" else "cpu")
    encoders: dict[Column, TokenEncoder] = {"jepa": trained.to(device), "random_init": untrained.to(device)}
    changed = [line for line in changed if not line.startswith(("compute.", "evaluate.enabled"))]
    output = _output(path, json.dumps([changed, *tasks]) if changed or tasks else "")
    numbers, layers_there = config.evaluate.attentive, config.model.depth
    rows = [(task, probe) for task in modality.tasks for probe in probe_names(task, numbers, layers_there)]
    rows += _function_rows(modality, config)
    _check_names(tasks, rows, modality, config)
    chosen = [(task, probe) for task, probe in rows if is_wanted(f"{task.label}/{probe}", tasks)]
    same_grid = modality.grid == trained_modality.grid
    return Subject(checkpoint, config, modality, encoders, chosen, tasks, output, same_grid)


def _function_rows(modality: Modality[Any], config: Config[Any, Any]) -> list[Row]:
    """Measures of one's own, each with the task of its label, which the modality need not have."""
    known = {task.label: task for task in modality.tasks}
    functions = config.evaluate.functions
    return [(known.get(one.label, Task(label=one.label, kind="regression")), one.function) for one in functions]


def _output(path: Path, variant: str) -> Path:
    """results.json of the run, or a file of its own for another evaluation or an older checkpoint."""
    run_dir = path if path.is_dir() else path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if path.is_file() and path != latest(run_dir):
        variant += path.name
    if not variant:
        return run_dir / "results.json"
    return run_dir / "evaluations" / f"{hashlib.blake2b(variant.encode(), digest_size=4).hexdigest()}.json"


def _check_names(asked: Sequence[str], rows: list[Row], modality: Modality[Any], config: Config[Any, Any]) -> None:
    """Raise ConfigError for what is no task; which near misses there are only samples tell."""
    names = [f"{task.label}/{probe}" for task, probe in rows]
    matched = isinstance(modality, MatchedModality)
    if isinstance(modality, MatchedModality):
        names += row_names(modality, config)
    for one in asked:
        if matched and one.partition("/")[0] == NEAR_MISS:
            continue
        if not any(is_wanted(name, [one]) for name in names):
            there = ", ".join(names) or "none, as the data has no labels"
            raise ConfigError(f"no task '{one}'; tasks of this data: {there}")
