"""The recipe of a modality from another package, compared with its baselines.

python -m benchmarks.plugins --modality jepa_audio.modality:Audio --sets instruments --seeds 3 \
    --json benchmarks/results/audio.json [key=value ...]

The package must be installed, or its folder in PYTHONPATH. A set is the data that the recipe names, or NAME=PATH for a
folder. The same command resumes runs from their directories below --runs. The test split is scored once per run.
"""

from collections.abc import Sequence
from statistics import fmean

from benchmarks.set_runs import Outcome, cell, markdown, outcome, parser, source, write
from jepa.config.recipes import plain_name

_NAMES = {"jepa": "trained", "random_init": "untrained"}
_NO_COLUMNS = {"metric", "higher_is_better", "train_samples", "test_samples", "chosen", "spread", "draws"}


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Rows of all tasks of one set: means over seeds, and standard deviations for the encoders."""
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
    """Rows of mean squared errors by horizon, means over seeds; none without a forecast."""
    measured = [one["forecast"] for one in outcomes if "forecast" in one]
    if not measured:
        return []
    rows = {
        f"{horizon} slots ahead": [
            cell([one["errors"][method][place] for one in measured], spread=False) for method in measured[0]["errors"]
        ]
        for place, horizon in enumerate(measured[0]["horizons"])
    }
    return ["", *markdown([method.replace("_", " ") for method in measured[0]["errors"]], rows)]


def main() -> None:
    """Run, and write the tables and the numbers."""
    arguments = parser(__doc__, "runs/benchmark-plugins")
    arguments.add_argument("--modality", required=True, help="name, or package.module:Class")
    options = arguments.parse_intermixed_args()
    all_outcomes: list[Outcome] = []
    lines: list[str] = []
    for text in options.sets:
        name, _, root = text.partition("=")
        runs, settings = options.runs / f"{plain_name(options.modality)}-{name}", [*source(root), *options.overrides]
        outcomes = [
            outcome(options.modality, name, seed, runs / f"seed{seed}", settings) for seed in range(options.seeds)
        ]
        all_outcomes += outcomes
        seconds = [fmean(one[part] for one in outcomes) for part in ("train_seconds", "evaluate_seconds")]
        tested = max(row["test_samples"] for row in outcomes[0]["tasks"].values())
        heading = (
            f"**{name}**: {outcomes[0]['samples']:,} samples seen in {seconds[0]:.0f} seconds, {seconds[1]:.0f} more"
        )
        lines += [f"{heading} of evaluation; {tested} test samples", "", *table(outcomes), *forecasts(outcomes), ""]
    write("benchmarks.plugins", options, ["--modality", options.modality], all_outcomes, lines)


if __name__ == "__main__":
    main()
