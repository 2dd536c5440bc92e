"""Captioned images: the recipe, the contrastive baseline on the same towers, data and steps, and ablations.

python -m benchmarks.image_text --sets scenes emoji=PATH --methods jepa infonce --seeds 1 --json FILE [key=value ...]

The same command resumes runs from their directories below --runs. The test split is scored once per run.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.set_runs import Outcome, cell, markdown, outcome, parser, source, write

_CONTRAST = ["loss.prediction_weight=0", "loss.regulariser=none", "model.projector=0", "loss.agreement=0"]
_WHOLE = "data.objectives={regions: 0, caption: 1, image: 1}"
METHODS = {
    "jepa": [],
    "infonce": [*_CONTRAST, _WHOLE, "model.contrast=infonce"],
    "sigmoid": [*_CONTRAST, _WHOLE, "model.contrast=sigmoid"],
    "jepa+infonce": ["model.contrast=infonce"],
    "regions alone": ["data.objectives={regions: 1, drop_caption: 1, caption: 0, image: 0}", "loss.agreement=0"],
    "without regions": [_WHOLE],
    "without agreement": ["loss.agreement=0"],
}
TITLES = {"infonce": "contrast (InfoNCE)", "sigmoid": "contrast (sigmoid)"}


def table(methods: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """Rows of all tasks: a column per method, the untrained networks and chance; means over seeds with spread."""
    tasks = dict.fromkeys(task for runs in methods.values() for task in runs[0]["tasks"])
    rows = {task: [cell(_scores(runs, task, "jepa"), spread=True) for runs in methods.values()] for task in tasks}
    first = next(iter(methods.values()))
    for task, cells in rows.items():
        cells += [cell(_scores(first, task, column), spread=False) for column in ("random_init", "chance")]
    rows |= {
        f"error of regions, {words}": [
            cell([_error(run, name) for run in runs], spread=True) for runs in methods.values()
        ]
        for name, words in (("own", "own caption"), ("without", "no caption"), ("other", "another's caption"))
    }
    rows["RankMe, image"] = [cell([run["collapse"].get("rankme") for run in runs], True) for runs in methods.values()]
    rows["minutes"] = [f"{fmean(run['minutes'] for run in runs):.1f}" for runs in methods.values()]
    rows = {name: [*cells, *[""] * (len(methods) + 2 - len(cells))] for name, cells in rows.items()}
    return markdown([*(TITLES.get(method, method) for method in methods), "untrained", "chance"], rows)


def _scores(runs: Sequence[Outcome], task: str, column: str) -> list[float | None]:
    return [run["tasks"].get(task, {}).get(column) for run in runs]


def _error(run: Outcome, name: str) -> float | None:
    error: float | None = run.get("streams", {}).get("gain", {}).get("error", {}).get(name)
    return error


def main() -> None:
    """Run, and write the tables and the numbers."""
    arguments = parser(__doc__, "runs/benchmark-image-text")
    arguments.add_argument("--methods", nargs="+", choices=METHODS, default=["jepa", "infonce"])
    options = arguments.parse_intermixed_args()
    outcomes: list[Outcome] = []
    lines: list[str] = []
    for text in options.sets:
        name, _, root = text.partition("=")
        methods: dict[str, list[Outcome]] = {}
        for method in options.methods:
            settings = [*source(root), *METHODS[method], *options.overrides]
            folders = [options.runs / f"{name}-{method.replace(' ', '-')}-{seed}" for seed in range(options.seeds)]
            methods[method] = [
                {"method": method, **outcome("image-text", name, seed, folder, settings)}
                for seed, folder in enumerate(folders)
            ]
            outcomes += methods[method]
        lines += [f"**{name}**: {methods[options.methods[0]][0]['samples']:,} pairs seen", "", *table(methods), ""]
    write("benchmarks.image_text", options, ["--methods", *options.methods], outcomes, lines)


if __name__ == "__main__":
    main()
