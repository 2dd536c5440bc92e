"""Arms: the ways to train that are compared, and the settings that are searched for each."""

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import supervised
from jepa import launch
from jepa.config import ConfigError, Tree, plain
from jepa.config.recipes import read_recipe
from jepa.cost.flops import run_flops
from jepa.distributed import World
from jepa.modality import Modality
from jepa.train import train
from jepa.training.config import Config

FOLDER = Path(__file__).resolve().parent / "arms"
Changes = dict[str, Any]  # values of searched settings, by path


@dataclass(frozen=True)
class Loop:
    """A training program. main: takes the command line of `jepa launch`. flops: of a whole run."""

    main: Callable[[list[str]], int]
    train: Callable[[Config[Any, Any], Modality[Any], World], bool]
    flops: Callable[[Config[Any, Any], Modality[Any]], float]


LOOPS = {
    "pretraining": Loop(launch.main, train, run_flops),
    "supervised": Loop(supervised.main, supervised.train, supervised.run_flops),
}


@dataclass(frozen=True)
class Arm:
    """A way to train. search: values to try, by setting; nothing is searched if it is empty."""

    name: str
    loop: str
    modality: str
    recipe: Tree
    search: Mapping[str, tuple[Any, ...]]


def read_arm(name: str) -> Arm:
    """Read an arm by its name in benchmarks/study/arms/, or by the path of such a file.

    The file is a recipe that may also have the keys `search`, `loop` and `modality`. Raises ConfigError.
    """
    path = FOLDER / f"{name}.yaml" if (FOLDER / f"{name}.yaml").is_file() else Path(name)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise ConfigError(f"no arm '{name}'; arms: {names}, or the path of a YAML file")
    tree = read_recipe(str(path))
    loop, modality, search = tree.pop("loop", "pretraining"), tree.pop("modality", "image"), tree.pop("search", {})
    if loop not in LOOPS:
        raise ConfigError(f"{path}: loop: should be one of {', '.join(LOOPS)}, not {loop!r}")
    if not isinstance(search, dict) or not all(isinstance(values, list) and values for values in search.values()):
        raise ConfigError(f"{path}: search: should give a list of values for each setting, such as optim.peak_lr")
    return Arm(path.stem, loop, modality, plain(tree), {key: tuple(values) for key, values in search.items()})


def design(search: Mapping[str, tuple[Any, ...]], trials: int) -> list[Changes]:
    """Different points of the search space, as many as `trials`: every value of a setting about equally often.

    The whole space if it has no more points; arms with equal spaces get equal points.
    """
    space = [dict(zip(search, values, strict=True)) for values in itertools.product(*search.values())]
    if len(space) <= trials:
        return space
    draw = random.Random(0)
    best: list[Changes] = []
    for _ in range(100):  # each column holds every value in turn, shuffled; equal rows are possible
        columns = [draw.sample([values[i % len(values)] for i in range(trials)], trials) for values in search.values()]
        rows = [dict(zip(search, values, strict=True)) for values in zip(*columns, strict=True)]
        different = [row for index, row in enumerate(rows) if row not in rows[:index]]
        if len(different) > len(best):
            best = different
    missing = draw.sample([point for point in space if point not in best], trials - len(best))
    return [*best, *missing]
