"""The video recipe on generated clips and on folders of videos, compared with its baselines.

python -m benchmarks.video --sets scenes weizmann4=PATH --seeds 1 --json benchmarks/results/video.json [key=value ...]

The same command resumes runs from their directories below --runs. The test split is scored once per run.
"""

from collections.abc import Sequence
from statistics import fmean

from benchmarks.set_runs import Outcome, cell, markdown, outcome, parser, source, write

COLUMNS = {
    "jepa": "trained",
    "random_init": "untrained",
    "raw_input": "raw clip",
    "middle_frame": "middle frame",
    "motion_energy": "motion energy",
    "chance": "chance",
}


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Rows of all tasks of one set, means over seeds and their standard deviation for the trained encoder."""
    rows = {
        f"{task} ({row['metric']})": [
            cell([one["tasks"][task].get(column) for one in outcomes], spread=column == "jepa") for column in COLUMNS
        ]
        for task, row in outcomes[0]["tasks"].items()
    }
    forecasts = [one["forecast"] for one in outcomes if "forecast" in one]
    return [*markdown(list(COLUMNS.values()), rows), *(["", *_forecast(forecasts)] if forecasts else [])]


def _forecast(forecasts: Sequence[Outcome]) -> list[str]:
    methods = list(forecasts[0]["errors"])
    rows = {
        f"{horizon} slots ahead": [
            f"{fmean(one['errors'][method][place] for one in forecasts):.3f}" for method in methods
        ]
        for place, horizon in enumerate(forecasts[0]["horizons"])
    }
    return markdown(methods, rows)


def main() -> None:
    """Run, and write the tables and the numbers."""
    options = parser(__doc__, "runs/benchmark-video").parse_intermixed_args()
    all_outcomes: list[Outcome] = []
    lines: list[str] = []
    for text in options.sets:
        name, _, root = text.partition("=")
        settings = [*source(root), *options.overrides]
        outcomes = [
            outcome("video", name, seed, options.runs / f"{name}-{seed}", settings) for seed in range(options.seeds)
        ]
        all_outcomes += outcomes
        samples, minutes = outcomes[0]["samples"], fmean(one["minutes"] for one in outcomes)
        tested = max(row["test_samples"] for row in outcomes[0]["tasks"].values())
        heading = f"**{name}**: {samples:,} clips seen, {minutes:.1f} minutes with evaluation, {tested} test clips"
        lines += [heading, "", *table(outcomes), ""]
    write("benchmarks.video", options, [], all_outcomes, lines)


if __name__ == "__main__":
    main()
