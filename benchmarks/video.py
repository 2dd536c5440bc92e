"""The recipe of videos on the embedded world that moves and on folders of videos: how good it is beside its floors.

python -m benchmarks.video --sets scenes weizmann4=PATH --seeds 1 --json benchmarks/results/video.json [key=value ...]

A run directory each below --runs, so that what was interrupted goes on; the test split is scored once a run.
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
    courses = list(forecasts[0]["errors"])
    rows = {
        f"{horizon} slots ahead": [
            f"{fmean(one['errors'][course][place] for one in forecasts):.3f}" for course in courses
        ]
        for place, horizon in enumerate(forecasts[0]["horizons"])
    }
    return markdown(courses, rows)


def main() -> None:
    """Run, print Markdown tables and write them and the same numbers as JSON."""
    asked = parser(__doc__, "runs/benchmark-video").parse_intermixed_args()
    found: list[Outcome] = []
    lines: list[str] = []
    for text in asked.sets:
        name, _, root = text.partition("=")
        settings = [*source(root), *asked.overrides]
        of_set = [outcome("video", name, seed, asked.runs / f"{name}-{seed}", settings) for seed in range(asked.seeds)]
        found += of_set
        samples, minutes = of_set[0]["samples"], fmean(one["minutes"] for one in of_set)
        tested = max(row["test_samples"] for row in of_set[0]["tasks"].values())
        heading = f"**{name}**: {samples:,} clips seen, {minutes:.1f} minutes with evaluation, {tested} test clips"
        lines += [heading, "", *table(of_set), ""]
    write("benchmarks.video", asked, [], found, lines)


if __name__ == "__main__":
    main()
