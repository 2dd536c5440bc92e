"""The page of a study: finals and curves as tables, the searches, and the figure of the curves."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks import provenance
from benchmarks.study.figure import draw
from benchmarks.study.log import Record, read
from benchmarks.study.scores import FLOORS, error, floor_runs, spoken, values
from benchmarks.study.search import ranking
from jepa.config import ConfigError
from jepa.console import CONSOLE

ROWS = {
    "class/linear": "linear",
    "class/linear_last4": "linear, last 4 layers",
    "class/attentive": "attentive",
    "class/knn": "k-NN",
    "class/low_shot_12": "12 labels a class",
    "count/ridge": "count, RMSE",
    "depth/ridge": "depth, RMSE",
    "rankme": "RankMe",
}


def report(name: str, log: Path, images: Path, words: str) -> None:
    """Write the pages study_NAME.md and study_NAME_search.md beside the log, and the figure of the curves to `images`.

    words: of the command line. Raises ConfigError.
    """
    records = [record for record in read(log).values() if "scores" in record or "failed" in record]
    if not records:
        raise ConfigError(f"{log} has no trials; run the search first")
    curves = [record for record in records if record["part"] == "curve" and "failed" not in record]
    command = f"`python -m benchmarks.study report {words}`"
    if curves:
        figure = images / f"study_{name}.svg"
        draw(name, curves, figure)
        CONSOLE.print(f"{figure}", highlight=False)
    searches = _searches(records)
    of_searches = f"; trials of the search: study_{name}_search.md" if searches else ""
    about = f"{_about(log, records)}{of_searches}."
    lines = [command, "", about, "", *_equal(records, "final", "Finals"), *_equal(records, "curve", "Curves")]
    _write(log.with_name(f"study_{name}.md"), lines)
    if searches:
        _write(log.with_name(f"study_{name}_search.md"), [f"# Searches on {name}", "", command, "", *searches])


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines).rstrip("\n") + "\n")
    CONSOLE.print(f"{path}", highlight=False)


def _about(log: Path, records: Sequence[Record]) -> str:
    commits, machines = sorted({one["git"] for one in records}), sorted({_machine(one) for one in records})
    return (
        f"{len(records)} trials, one thread each, on {', '.join(machines)}; commits {', '.join(commits)}. Numbers are "
        "means over seeds ± standard error; one seed has no error. A minute of two cores is 90 CPU seconds. Settings, "
        f"CPU seconds and all scores of every trial: {log.name}"
    )


def _machine(record: Record) -> str:
    return f"{record['machine']} in {_precision(record)}"


def _precision(record: Record) -> str:
    """Records of a time when all trials were in bf16 do not say it."""
    precision: str = record.get("precision", "bf16")
    return precision


def _equal(records: Sequence[Record], part: str, title: str) -> list[str]:
    """Tables of the runs of equal budget, one per budget and split."""
    runs = [one for one in records if one["part"] == part]
    lines = []
    for unit, amount, split in sorted({(one["unit"], one["budget"], one["split"]) for one in runs}):
        group = [one for one in runs if (one["unit"], one["budget"], one["split"]) == (unit, amount, split)]
        minutes = f"{amount:g} minute{'' if amount == 1 else 's'} of two cores"
        words = {"minutes": minutes, "images": f"{amount:,.0f} images"}.get(unit, f"{amount:.3g} {unit}")
        lines += [f"**{title}: {words}, {split} split**", "", _table(group), ""]
    return lines


def _table(runs: Sequence[Record]) -> str:
    """A row per arm, then untrained and raw pixels, which are those of the arm with most of them measured."""
    rows: dict[str, list[str]] = {}
    scored = [one for one in runs if "failed" not in one]
    shown = [row for row in ROWS if any(row in one["scores"] for one in scored)]
    for arm in dict.fromkeys(one["arm"] for one in runs):
        of_arm = [one for one in scored if one["arm"] == arm]
        failed = sum(one["arm"] == arm for one in runs) - len(of_arm)
        name = spoken(arm) + (f" ({failed} failed)" if failed else "")
        rows[name] = [*(_cell(row, values(of_arm, row, "jepa")) for row in shown), *_sizes(of_arm)]
    for column, name in FLOORS.items():
        rows[name] = [*(_cell(row, values(floor_runs(scored), row, column)) for row in shown), "", "", "", ""]
    headings = ["", *(ROWS[row] for row in shown), "images", "FLOPs", "CPU seconds", "seeds"]
    return provenance.table(headings, [[name, *cells] for name, cells in rows.items()])


def _cell(row: str, scores: Sequence[float]) -> str:
    if not scores:
        return ""
    digits = 1 if row == "rankme" else 3
    return f"{fmean(scores):.{digits}f}" + (f" ± {error(scores):.{digits}f}" if len(scores) > 1 else "")


def _sizes(runs: Sequence[Record]) -> list[str]:
    """Images, FLOPs, CPU seconds and number of the runs of an arm."""
    if not runs:
        return ["", "", "", "0"]
    seconds: dict[str, list[float]] = {}
    for one in runs:
        if one["cpu_seconds"] is not None:
            seconds.setdefault(_precision(one), []).append(one["cpu_seconds"])
    means = {precision: f"{fmean(of_one):,.0f}" for precision, of_one in sorted(seconds.items())}
    spent = ", ".join(f"{mean} in {name}" if len(means) > 1 else mean for name, mean in means.items())
    return [f"{runs[0]['images']:,}", f"{runs[0]['flops']:.3g}", spent, f"{len(runs)}"]


def _searches(records: Sequence[Record]) -> list[str]:
    """A table of the trials of every search, the last rung first, and in it the best trial."""
    trials = [one for one in records if one["part"] == "search"]
    if not trials:
        return []
    lines = ["Seed 0, validation split; ordered by the mean of linear, k-NN and 12 labels.", ""]
    for arm in dict.fromkeys(one["arm"] for one in trials):
        of_arm = sorted((one for one in trials if one["arm"] == arm), key=lambda one: (-one["rung"], -ranking(one)))
        cells = [[_changes(one), f"{one['images']:,}", *_trial_cells(one)] for one in of_arm]
        lines += [f"**{spoken(arm)}**", "", provenance.table(["settings", "images", *_SEARCHED.values()], cells), ""]
    return lines


_SEARCHED = {row: ROWS[row] for row in ("class/linear", "class/knn", "class/low_shot_12", "rankme")}


def _trial_cells(record: Record) -> list[str]:
    if "failed" in record:
        return ["failed", *[""] * (len(_SEARCHED) - 1)]
    return [_cell(row, values([record], row, "jepa")) for row in _SEARCHED]


def _changes(record: Record) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in record["changes"].items())
