"""Results of all methods as rows, and as a Markdown table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from benchmarks import provenance
from jepa.evaluate.features import ENCODERS, Column
from jepa.evaluate.labels import LOW_SHOT
from jepa.evaluate.table import columns

Results = Mapping[str, Any]  # of results.json
Row = dict[str, Any]
Summary = dict[str, Any]  # mean, spread and values over seeds

TASKS = {
    "linear": "class/linear",
    "linear_last4": "class/linear_last4",
    "knn": "class/knn",
    "low_shot": f"class/low_shot_{LOW_SHOT}",
    "attentive": "class/attentive",
    "count": "count/ridge",
    "depth": "depth/ridge",
    "depth_map": "depth_map/ridge",
}
_TITLES = {
    "linear": "linear",
    "linear_last4": "linear, last 4 layers",
    "knn": "k-NN",
    "low_shot": f"{LOW_SHOT} labels a class",
    "attentive": "attentive",
    "head": "its own classifier",
    "count": "count, RMSE",
    "depth": "depth, RMSE",
    "depth_map": "depth map, RMSE",
    "rankme": "RankMe",
    "target_std": "target std",
    "seconds": "seconds",
    "samples": "images seen",
    "steps": "steps",
    "flops": "FLOPs",
}


@dataclass(frozen=True)
class Outcome:
    """All seeds of one method. flops: of a whole run."""

    method: str
    flops: float
    results: Sequence[Results]


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """A row per method, then the untrained encoder and the baselines from the runs of `jepa` or the first method."""
    reference = next((outcome for outcome in outcomes if outcome.method == "jepa"), outcomes[0])
    names = [name for name in columns(reference.results[0]["tasks"]) if name not in (*ENCODERS, "chance")]
    baselines = [
        _baseline(reference, "untrained", "random_init"),
        *(_baseline(reference, name, name) for name in names),
    ]
    return [*map(_row, outcomes), *baselines]


def _row(outcome: Outcome) -> Row:
    results = outcome.results
    signs = {name: summary([one["collapse"].get(name) for one in results]) for name in ("rankme", "target_std")}
    return {
        "method": outcome.method,
        **_scores(results, "jepa"),
        "head": summary([one.get("head") for one in results]),
        **signs,
        "seconds": summary([one["train_seconds"] for one in results]),
        "samples": results[0]["samples"],
        "steps": results[0]["steps"],
        "flops": outcome.flops,
        "seeds": len(results),
    }


def _baseline(outcome: Outcome, name: str, column: Column) -> Row:
    results = outcome.results
    ranks = [one["collapse"].get(f"rankme_{column}") for one in results]
    measured = {**_scores(results, column), "head": None, "rankme": summary(ranks), "target_std": None}
    return {"method": name, **measured, "seconds": None, "samples": 0, "steps": 0, "flops": 0.0, "seeds": len(results)}


def _scores(results: Sequence[Results], column: Column) -> Row:
    known = {
        name: task for name, task in TASKS.items() if task in results[0]["tasks"]
    }  # some data has no depths, for example
    return {name: summary([one["tasks"][task][column] for one in results]) for name, task in known.items()}


def summary(values: Sequence[float | None]) -> Summary | None:
    """Mean and standard deviation (0 for a single seed) of one number per seed; None if it was not measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"mean": fmean(known), "spread": stdev(known) if len(known) > 1 else 0.0, "values": known}


def chances(outcome: Outcome) -> dict[str, float]:
    """Scores by chance, by task."""
    tasks = outcome.results[0]["tasks"]
    return {name: tasks[task]["chance"] for name, task in TASKS.items() if task in tasks}


def markdown(report: Mapping[str, Any]) -> str:
    """Page with the command, the machine and the table: accuracies as fractions, mean ± spread over seeds."""
    shown = [name for name in _TITLES if any(row.get(name) for row in report["rows"])]
    hardware, budget = report["hardware"], report["budget"]
    lines = [
        f"`{report['command']}`",
        "",
        f"{hardware['cpu']}, {hardware['cores']} cores{', ' + hardware['gpu'] if hardware['gpu'] else ''}, torch "
        f"{hardware['torch']}, commit {report['git']}. Budget: {budget['amount']:.6g} {budget['kind']} a run, "
        f"{report['seeds']} seed{'s, mean ± standard deviation' if report['seeds'] > 1 else ''}; scored on the "
        f"{report['split']} split.",
        "",
        provenance.table(
            ["method", *(_TITLES[name] for name in shown)],
            [[row["method"].replace("_", " "), *(_cell(name, row) for name in shown)] for row in report["rows"]],
        ),
    ]
    chance = ", ".join(f"{_TITLES[name]} {value:.3f}" for name, value in report["chance"].items())
    return "\n".join([*lines, "", f"By chance: {chance}.", ""])


def _cell(name: str, row: Row) -> str:
    value = row.get(name)
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return f"{value:.3g}" if name == "flops" else f"{value:,}"
    digits = {"rankme": 1, "seconds": 0}.get(name, 3)
    spread = f" ± {value['spread']:.{digits}f}" if len(value["values"]) > 1 else ""
    return f"{value['mean']:.{digits}f}{spread}"
