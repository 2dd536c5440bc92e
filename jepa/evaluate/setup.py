"""The setup of an evaluation: networks from a checkpoint, the config, the requested tasks, the path of the results."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepa.checkpoint import Checkpoint
from jepa.config import ConfigError, Tree, as_tree, differences, plain
from jepa.config.effects import Use, check_effects
from jepa.data import DataError
from jepa.data.index import index_of_run
from jepa.encoder import TokenEncoder
from jepa.evaluate.features import Column
from jepa.evaluate.reading import sample_limits
from jepa.evaluate.request import Request, results_path, run_of
from jepa.evaluate.tasks import probe_names
from jepa.modality import Modality, Split, Task
from jepa.settings.resolve import say
from jepa.training.checks import check_functions
from jepa.training.config import Config
from jepa.weights.families.encoder import FamilyEncoder
from jepa.weights.opened import Opened, open_source
from jepa.weights.trust import check_trusted

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

    opened: Opened
    encoders: dict[Column, TokenEncoder]
    available: list[TaskProbe]
    requested: Sequence[str]  # names of tasks or rows; all if empty
    output: Path
    record: dict[str, Any]  # of the request
    trained_run: Path | None  # the run directory, if the data is that of its training

    @property
    def config(self) -> Config[Any, Any]:
        """The config, with the overrides."""
        return self.opened.config

    @property
    def modality(self) -> Modality[Any]:
        """The modality, with the overrides."""
        return self.opened.modality

    @property
    def on_trained_grid(self) -> bool:
        """Whether inputs have the token grid of training."""
        return self.opened.on_trained_grid

    @property
    def checkpoint(self) -> Checkpoint | None:
        """All trained networks; None for an encoder of another family."""
        return self.opened.checkpoint

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


def open_setup(request: Request) -> EvaluationSetup:
    """Open a source; raises ConfigError for overrides that do not fit, CheckpointError and DataError."""
    run_dir = run_of(str(request.source))
    trust = request.trust or run_dir is not None  # a run imports what it imported in training
    given = [request.base, *request.layers]
    opened = open_source(request.source, given, modality=request.modality, step=request.step, trust=trust)
    config, modality = opened.config, opened.modality
    changes = as_tree(request.layers, Config.of(type(modality)))
    if not trust:
        functions = [one.function for one in config.evaluate.functions]
        check_trusted(opened.source, functions, {"base": request.base, "changes": changes})
    changed = differences(plain(opened.trained[0]), plain(config))
    _check_changes(request, opened, changes, changed)
    try:
        trained = opened.token_encoder()
    except RuntimeError as error:
        raise ConfigError(
            f"the encoder of {request.source} does not fit this data section: {str(error).splitlines()[-1]}"
        ) from error
    device = torch.device("cuda" if torch.cuda.is_available() and config.compute.device != "cpu" else "cpu")
    encoders: dict[Column, TokenEncoder] = {
        "jepa": trained.to(device),
        "random_init": opened.untrained_encoder().to(device),
    }
    changed = [line for line in changed if not line.startswith(("compute.", "evaluate.enabled", "evaluate.report"))]
    output = results_path(request, run_dir, json.dumps([changed, *request.tasks]) if changed or request.tasks else "")
    modality.index_folder = index_of_run(run_dir or output.parent)
    try:
        rows = possible_rows(modality, config, isinstance(trained, FamilyEncoder) and bool(trained.pooling))
    except (OSError, ValueError) as error:
        raise DataError(f"data: {error}") from error
    same_data = not any(line.startswith("data.") for line in changed)
    return EvaluationSetup(
        opened, encoders, rows, request.tasks, output, request.record(), run_dir if same_data else None
    )


def _check_changes(request: Request, opened: Opened, changes: Tree, changed: Sequence[str]) -> None:
    """Raise ConfigError for overrides that an evaluation cannot make, and if the source names no data."""
    config, data = opened.config, opened.config.data
    if fixed := [line for line in changed if not line.startswith(_FREE)]:
        raise ConfigError(f"evaluation cannot change {fixed[0]}; it can change data, evaluate and compute")
    check_effects(Use(config, opened.modality, evaluates=True, set_by_user=changes), changes)
    if not (names_data(changes) or names_data(request.base) or own_data(opened)):
        world = f", or data.source={data.world} for generated data" if data.world else ""
        raise ConfigError(f"{request.source} names no data to evaluate on; add data.root=PATH{world}")
    if "root" in changes.get("data", {}):
        say([f"data.source={data.source}, data.root={data.root or 'null'}"])
    if config.evaluate.functions != opened.trained[0].evaluate.functions:  # those of a run were checked before training
        check_functions(config.evaluate.functions)


def names_data(tree: Tree) -> bool:
    """Whether settings say what data to read."""
    return any(name in tree.get("data", {}) for name in ("source", "root"))


def own_data(opened: Opened) -> Tree:
    """The settings of the data that a source was trained on; empty if it does not say."""
    if opened.checkpoint is None or not names_data(opened.checkpoint.config):
        return {}
    data = plain(opened.trained[0].data)
    return {"data": {name: data[name] for name in ("source", "root", opened.config.data.world) if name in data}}


def possible_rows(modality: Modality[Any], config: Config[Any, Any], pooled: bool = False) -> list[TaskProbe]:
    """All probes of the modality's tasks, then the custom metrics, whose label need not be a task.

    pooled: the encoder has a pooled vector of its own.
    """
    blocks, depth = config.evaluate.attentive, config.model.depth
    rows = [TaskProbe(task, probe) for task in modality.tasks for probe in probe_names(task, blocks, depth, pooled)]
    known = {task.label: task for task in modality.tasks}
    tasks = [known.get(one.label, Task(label=one.label, kind="regression")) for one in config.evaluate.functions]
    return rows + [TaskProbe(task, one.function) for task, one in zip(tasks, config.evaluate.functions, strict=True)]
