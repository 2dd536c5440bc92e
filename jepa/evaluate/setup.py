"""The setup of an evaluation: networks from a checkpoint, the config, the requested tasks, the path of the results."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepa.checkpoint import Checkpoint, latest
from jepa.config import ConfigError, Tree, as_tree, differences, plain
from jepa.config.effects import Use, check_effects
from jepa.data import DataError
from jepa.data.index import index_of_run
from jepa.encoder import TokenEncoder
from jepa.evaluate.features import Column
from jepa.evaluate.reading import sample_limits
from jepa.evaluate.tasks import probe_names
from jepa.modality import Modality, Split, Task
from jepa.positions import grid_positions
from jepa.settings.resolve import say
from jepa.training.checks import check_functions
from jepa.training.config import Config
from jepa.weights.load import configured, encoder_of, read_checkpoint, untrained_encoder

_FREE = ("data.", "evaluate.", "compute.")  # sections that an evaluation may override


class TaskProbe(NamedTuple):
    """A task and one of its probes: a row of the results."""

    task: Task
    probe: str

    @property
    def name(self) -> str:
        """The key in results.json."""
        return f"{self.task.label}/{self.probe}"


@dataclass(frozen=True)
class EvaluationSetup:
    """What to evaluate, on which tasks, and where to write the results."""

    checkpoint: Checkpoint
    config: Config[Any, Any]
    modality: Modality[Any]
    encoders: dict[Column, TokenEncoder]
    available: list[TaskProbe]
    requested: Sequence[str]  # names of tasks or rows; all if empty
    output: Path
    on_trained_grid: bool

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.encoders["jepa"].device

    @property
    def limits(self) -> dict[Split, int]:
        """Limits on the evaluated samples of each split."""
        return sample_limits(self.modality, self.config.evaluate)

    @property
    def rows(self) -> list[TaskProbe]:
        """The requested probes."""
        return [row for row in self.available if self.wants(row.name)]

    def wants(self, name: str) -> bool:
        """Whether this row or its task is requested."""
        return not self.requested or any(is_part_of(name, request) for request in self.requested)


def is_part_of(name: str, request: str) -> bool:
    """Whether a row (`class/knn`) is the requested row, or belongs to the requested task (`class`)."""
    return name == request or name.startswith(f"{request}/")


def open_setup(path: Path, tasks: Sequence[str], layers: Sequence[Tree | str]) -> EvaluationSetup:
    """Load a run directory or checkpoint; raises ConfigError for overrides `layers` that do not fit, and DataError."""
    checkpoint = read_checkpoint(path)
    trained_config, trained_modality = configured(checkpoint)
    config, modality = configured(checkpoint, layers)
    modality.index_folder = index_of_run(path)
    changed = differences(plain(trained_config), plain(config))
    if fixed := [line for line in changed if not line.startswith(_FREE)]:
        raise ConfigError(f"evaluation cannot change {fixed[0]}; it can change data, evaluate and compute")
    changes = as_tree(layers, Config.of(type(modality)))
    check_effects(Use(config, modality, evaluates=True, set_by_user=changes), changes)
    if "root" in changes.get("data", {}):
        say([f"data.source={config.data.source}, data.root={config.data.root or 'null'}"])
    if config.evaluate.functions != trained_config.evaluate.functions:  # those of the run were checked before training
        check_functions(config.evaluate.functions)
    try:
        trained = encoder_of(checkpoint, config, modality, config.evaluate.encoder)
    except RuntimeError as error:
        raise ConfigError(
            f"the encoder of {path} does not fit this data section: {str(error).splitlines()[-1]}"
        ) from error
    untrained = untrained_encoder(trained_config, trained_modality)
    on_trained_grid = modality.grid == trained_modality.grid
    if not on_trained_grid:
        untrained.set_positions(grid_positions(modality.grid, trained_modality.grid))
    device = torch.device("cuda" if torch.cuda.is_available() and config.compute.device != "cpu" else "cpu")
    encoders: dict[Column, TokenEncoder] = {"jepa": trained.to(device), "random_init": untrained.to(device)}
    changed = [line for line in changed if not line.startswith(("compute.", "evaluate.enabled", "evaluate.report"))]
    output = _output(path, json.dumps([changed, *tasks]) if changed or tasks else "")
    try:
        rows = possible_rows(modality, config)
    except (OSError, ValueError) as error:
        raise DataError(f"data: {error}") from error
    return EvaluationSetup(checkpoint, config, modality, encoders, rows, tasks, output, on_trained_grid)


def possible_rows(modality: Modality[Any], config: Config[Any, Any]) -> list[TaskProbe]:
    """All probes of the modality's tasks, then the custom metrics, whose label need not be a task."""
    blocks, depth = config.evaluate.attentive, config.model.depth
    rows = [TaskProbe(task, probe) for task in modality.tasks for probe in probe_names(task, blocks, depth)]
    known = {task.label: task for task in modality.tasks}
    tasks = [known.get(one.label, Task(label=one.label, kind="regression")) for one in config.evaluate.functions]
    return rows + [TaskProbe(task, one.function) for task, one in zip(tasks, config.evaluate.functions, strict=True)]


def _output(path: Path, variant: str) -> Path:
    """results.json of the run; a file in evaluations/ for other settings, some tasks only, or an older checkpoint."""
    run_dir = path.parent.parent if path.parent.name == "checkpoints" else path if path.is_dir() else path.parent
    if path not in (run_dir, latest(run_dir)):
        variant += path.name
    if not variant:
        return run_dir / "results.json"
    return run_dir / "evaluations" / f"{hashlib.blake2b(variant.encode(), digest_size=4).hexdigest()}.json"
