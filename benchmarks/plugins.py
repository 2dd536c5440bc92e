"""The recipe of a modality from another package: how good it is beside its floors.

python -m benchmarks.plugins --modality jepa_audio.modality:Audio --sets instruments --seeds 3 \
    --json benchmarks/results/audio.json [key=value ...]

The package is installed, or its folder stands in PYTHONPATH. A set is what the recipe names, or NAME=PATH for a folder.
A run directory each below --runs, so that what was interrupted goes on; the test split is scored once a run.
"""

from collections.abc import Sequence
from statistics import fmean

from benchmarks.set_runs import Outcome, cell, markdown, outcome, parser, source, write
from jepa.config.recipes import plain_name

_NAMES = {"jepa": "trained", "random_init": "untrained"}
_NO_COLUMNS = {"metric", "higher_is_better", "train_samples", "test_samples", "chosen", "spread", "draws"}


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Rows of all tasks of one set, means over seeds and, where a column has one, their standard deviation."""
    tasks = outcomes[0]["tasks"]
    columns = [name for name in next(iter(tasks.values())) if name not in _NO_COLUMNS]
    rows = {
        f"{task} ({row['metric']})": [
            cell([one["tasks"][task].get(column) for one in outcomes], spread=column in _NAMES) for column in columns
        ]
        for task, row in tasks.items()
    }
    return markdown([_NAMES.get(column, column.replace("_", " ")) for column in columns], rows)


def forecasts(outcomes: Sequence[Outcome]) -> list[str]:
    """Rows of mean square errors by how far ahead, means over seeds; none without a forecast."""
    found = [one["forecast"] for one in outcomes if "forecast" in one]
    if not found:
        return []
    rows = {
        f"{horizon} slots ahead": [
            cell([one["errors"][course][place] for one in found], spread=False) for course in found[0]["errors"]
        ]
        for place, horizon in enumerate(found[0]["horizons"])
    }
    return ["", *markdown([course.replace("_", " ") for course in found[0]["errors"]], rows)]


def main() -> None:
    """Run, print Markdown tables and write them and the same numbers as JSON."""
    made = parser(__doc__, "runs/benchmark-plugins")
    made.add_argument("--modality", required=True, help="its name, or package.module:Class")
    asked = made.parse_intermixed_args()
    found: list[Outcome] = []
    lines: list[str] = []
    for text in asked.sets:
        name, _, root = text.partition("=")
        runs, settings = asked.runs / f"{plain_name(asked.modality)}-{name}", [*source(root), *asked.overrides]
        of_set = [outcome(asked.modality, name, seed, runs / f"seed{seed}", settings) for seed in range(asked.seeds)]
        found += of_set
        seconds = [fmean(one[part] for one in of_set) for part in ("train_seconds", "evaluate_seconds")]
        tested = max(row["test_samples"] for row in of_set[0]["tasks"].values())
        heading = (
            f"**{name}**: {of_set[0]['samples']:,} samples seen in {seconds[0]:.0f} seconds, {seconds[1]:.0f} more"
        )
        lines += [f"{heading} of evaluation; {tested} test samples", "", *table(of_set), *forecasts(of_set), ""]
    write("benchmarks.plugins", asked, ["--modality", asked.modality], found, lines)


if __name__ == "__main__":
    main()
