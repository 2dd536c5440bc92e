"""Captioned images: the recipe, the contrastive baseline on the same towers, data and steps, and what of it matters.

python -m benchmarks.image_text --sets scenes emoji=PATH --methods jepa infonce --seeds 1 --json FILE [key=value ...]

A run directory each below --runs, so that what was interrupted goes on; the test split is scored once a run.
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
    """Rows of all tasks, a column a method, then the untrained networks and chance; means over seeds with spread."""
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
    found: float | None = run.get("streams", {}).get("gain", {}).get("error", {}).get(name)
    return found


def main() -> None:
    """Run, print Markdown tables and write them and the same numbers as JSON."""
    asked_for = parser(__doc__, "runs/benchmark-image-text")
    asked_for.add_argument("--methods", nargs="+", choices=METHODS, default=["jepa", "infonce"])
    asked = asked_for.parse_intermixed_args()
    found: list[Outcome] = []
    lines: list[str] = []
    for text in asked.sets:
        name, _, root = text.partition("=")
        methods: dict[str, list[Outcome]] = {}
        for method in asked.methods:
            settings = [*source(root), *METHODS[method], *asked.overrides]
            folders = [asked.runs / f"{name}-{method.replace(' ', '-')}-{seed}" for seed in range(asked.seeds)]
            methods[method] = [
                {"method": method, **outcome("image-text", name, seed, folder, settings)}
                for seed, folder in enumerate(folders)
            ]
            found += methods[method]
        lines += [f"**{name}**: {methods[asked.methods[0]][0]['samples']:,} pairs seen", "", *table(methods), ""]
    write("benchmarks.image_text", asked, ["--methods", *asked.methods], found, lines)


if __name__ == "__main__":
    main()
