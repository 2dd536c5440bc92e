"""Compare methods of pretraining on small data: same encoder, data, budget and frozen probes.

    python -m benchmarks.learning --data PHOTOS --methods jepa,pixels,supervised --seconds 180 --seeds 3 --json FILE

A method is a file in benchmarks/methods/ with settings over configs/image.yaml, or the path of such a file. Each runs
once per seed, as a user would run it. The budget of a run is in steps, floating-point operations, or seconds. For
seconds, the speed of each method is measured first, on an idle machine, and converted to steps once; later load does
not change results. A .md with the table is written beside the JSON. The same command resumes where it was stopped.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from benchmarks import provenance
from benchmarks.learning_runs import (
    Budget,
    BudgetKind,
    Method,
    Run,
    RunFailedError,
    StoppedError,
    finish,
    locked,
    measured_speeds,
    planned_run,
    read_method,
)
from benchmarks.learning_table import Outcome, chances, markdown, rows
from benchmarks.supervised import class_task, scored_samples
from jepa.config import ConfigError
from jepa.console import CONSOLE
from jepa.data import DataError, open_split
from jepa.errors import INTERRUPTED, exit_status
from jepa.launch import resolve
from jepa.modality import Modality
from jepa.training.config import Config

_OPTION_OF = {  # the option that sets a setting of the comparison
    "data.source": "--data",
    "data.root": "--data",
    "steps": "--steps, --seconds or --flops",
    "seed": "--seeds",
    "run_dir": "--work",
    "evaluate.enabled": "no option: every run is evaluated",
    "evaluate.scored_split": "--split",
}


@dataclass(frozen=True)
class Comparison:
    """A comparison. common: settings of all methods, including those of the command line."""

    words: tuple[str, ...]  # the command line
    methods: tuple[Method, ...]
    budget: Budget
    split: Literal["validation", "test"]
    common: tuple[str, ...]
    seeds: int
    jobs: int
    json: Path
    work: Path | None


@dataclass(frozen=True)
class Plan:
    """A method with its config. flops: of one step."""

    config: Config[Any, Any]
    modality: Modality[Any]
    flops: float


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the command line says -> exit status."""
    comparison = _comparison(list(sys.argv[1:] if argv is None else argv))
    try:
        return exit_status(lambda: compare(comparison))
    except RunFailedError as error:
        CONSOLE.print(f"error: {error}", style="bold red", highlight=False, markup=False)
        return 1
    except StoppedError as error:
        CONSOLE.print(f"stopped by {error}; the same command resumes", highlight=False)
        return INTERRUPTED


def compare(comparison: Comparison) -> int:
    """Make all missing runs and write the table -> exit status."""
    plans = {method.name: _plan(method, comparison.common) for method in comparison.methods}
    _check_data(next(iter(plans.values())))
    work = (comparison.work or Path("runs/learning") / _digest(comparison, plans)).resolve()
    with locked(work) as lock:
        budget = _budget(comparison, plans, work, lock)
        runs = [
            planned_run(method, seed, budget["steps"][method.name], comparison.common, work)
            for seed in range(comparison.seeds)
            for method in comparison.methods
        ]
        CONSOLE.print(f"{len(runs)} runs in {work}: steps {budget['steps']}", highlight=False)
        for number, run in enumerate(finish(runs, comparison.jobs, lock), start=1):
            CONSOLE.print(f"{number}/{len(runs)} {_summary(run)}", highlight=False)
    report = _report(comparison, plans, budget, runs)
    provenance.write(comparison.json, report, markdown(report))
    return 0


def _plan(method: Method, common: Sequence[str]) -> Plan:
    try:
        config, modality = resolve("image", method.recipe, common)
        flops = method.loop.flops(config, modality) / config.steps
    except ConfigError as error:
        raise ConfigError(f"{method.name}: {error}") from error
    return Plan(config, modality, flops)


def _check_data(plan: Plan) -> None:
    """Raise ConfigError or DataError if representations cannot be evaluated on the data."""
    class_task(plan.modality)
    for split in ("train", "validation"):
        if not len(open_split(plan.modality, split)):
            raise DataError(f"data: the {split} split has no samples")
    if not len(scored_samples(plan.modality, plan.config.evaluate)):
        raise DataError(f"data: the {plan.config.evaluate.scored_split} split has no samples")


def _digest(comparison: Comparison, plans: Mapping[str, Plan]) -> str:
    """Name of the settings; it does not depend on seeds and jobs, so more of them find the same runs."""
    settings = [asdict(comparison.budget), {name: plan.config.run_dir.name for name, plan in plans.items()}]
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=4).hexdigest()


def _budget(comparison: Comparison, plans: Mapping[str, Plan], work: Path, lock: int) -> dict[str, Any]:
    """The budget, and the steps of each method."""
    budget = comparison.budget
    measured: dict[str, Any] = {}
    match budget.kind:
        case "steps":
            costs = dict.fromkeys(plans, 1.0)
        case "flops":
            costs = {name: plan.flops for name, plan in plans.items()}
        case "seconds":
            speeds = measured_speeds(comparison.methods, comparison.common, work, lock)
            costs = {name: plan.config.optim.batch_size / speeds[name] for name, plan in plans.items()}
            measured = {"samples_per_second": speeds}
    return {**asdict(budget), "steps": budget.steps(costs), **measured}


def _summary(run: Run) -> str:
    results = run.results()
    tasks = results["tasks"]
    scores = ", ".join(f"{task.removeprefix('class/')} {row['jepa']:.3f}" for task, row in tasks.items())
    rank = results["collapse"]["rankme"]
    return f"{run.method.name}, seed {run.seed}: {scores}, RankMe {rank:.1f}, {results['train_seconds']:.0f} s"


def _report(
    comparison: Comparison, plans: Mapping[str, Plan], budget: Mapping[str, Any], runs: Sequence[Run]
) -> dict[str, Any]:
    outcomes = []
    for name, plan in plans.items():
        results = [run.results() for run in runs if run.method.name == name]
        outcomes.append(Outcome(name, plan.flops * budget["steps"][name], results))
    return {
        **provenance.provenance("benchmarks.learning", comparison.words),
        "budget": budget,
        "split": comparison.split,
        "seeds": comparison.seeds,
        "chance": chances(outcomes[0]),
        "rows": rows(outcomes),
    }


def _comparison(argv: list[str]) -> Comparison:
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    for text in options.overrides:
        key = text.partition("=")[0]
        if key in _OPTION_OF:
            parser.error(f"{key} is not a setting of a comparison: it is set by {_OPTION_OF[key]}")
    kind = next(kind for kind in get_args(BudgetKind) if getattr(options, kind) is not None)
    common = (*options.overrides, *options.data, f"evaluate.scored_split={options.split}")
    budget = Budget(kind, getattr(options, kind))
    return Comparison(
        tuple(argv),
        options.methods,
        budget,
        options.split,
        common,
        options.seeds,
        options.jobs,
        options.json,
        options.work,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=_data, required=True, metavar="FOLDER|scenes", help="images by class, or generated ones"
    )
    parser.add_argument(
        "--methods", type=_methods, default="jepa,ijepa,pixels,lejepa,supervised", help="separated by commas"
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--seconds", type=_positive(float), help="of training per run, alone on this machine")
    budget.add_argument("--steps", type=_positive(int), help="optimiser steps per run")
    budget.add_argument("--flops", type=_positive(float), help="floating-point operations per run")
    parser.add_argument("--seeds", type=_positive(int), default=3, help="runs of each method (default: 3)")
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="the split to report")
    parser.add_argument("--jobs", type=_positive(int), default=1, help="simultaneous runs, which share the cores")
    parser.add_argument("--work", type=Path, help="folder of the runs (default: runs/learning/HASH)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of all methods")
    return parser


N = TypeVar("N", int, float)


def _positive(kind: Callable[[str], N]) -> Callable[[str], N]:
    def parse(text: str) -> N:
        try:
            number = kind(text)
        except ValueError:
            number = kind("0")
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"a positive number is needed, not '{text}'")
        return number

    return parse


def _data(text: str) -> tuple[str, ...]:
    """Settings of the data."""
    if text == "scenes":
        return ("data.source=scenes",)
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder '{text}'; a folder of images is needed, or scenes")
    return ("data.source=folder", f"data.root={Path(text).resolve()}")


def _methods(text: str) -> tuple[Method, ...]:
    try:
        methods = tuple(read_method(name) for name in text.split(","))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    names = [method.name for method in methods]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise argparse.ArgumentTypeError(f"two methods are called '{repeated[0]}'")
    return methods


if __name__ == "__main__":
    sys.exit(main())
