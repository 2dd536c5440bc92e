"""Evaluate several sources under one protocol, each once, and join their results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jepa.config import ConfigError, Tree, as_tree, plain
from jepa.console import CONSOLE, shown
from jepa.disk import write_text, writing
from jepa.errors import UserError, print_error
from jepa.evaluate.request import EVALUATIONS, Request, digest, plain_name_of, run_of
from jepa.evaluate.run import evaluate
from jepa.evaluate.setup import names_data, own_data
from jepa.probe.protocol import CHANGE_NO_SCORE, EvaluateConfig
from jepa.training.config import ComputeConfig, Config
from jepa.weights.families.names import family_name
from jepa.weights.opened import open_source

_BASELINES = ("random_init", "raw_input")
_SAMPLES = ("train_samples", "validation_samples", "test_samples")
_SHARED = ("metric", "higher_is_better", "chance", *_SAMPLES, "caveats")
_OTHER_LABELS = "the labels of the test samples differ, so the data does, or for maps the grid of tokens"


@dataclass(frozen=True)
class Comparison:
    """Results of several sources. results: of each source by name. failed: why a source has none, by its name."""

    folder: Path
    results: dict[str, dict[str, Any]]
    failed: dict[str, str]

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Rows as in the results of one source, with the sources as columns."""
        names = dict.fromkeys(name for of_source in self.results.values() for name in of_source["tasks"])
        return {name: self._row(name) for name in names}

    def _row(self, name: str) -> dict[str, Any]:
        rows = {source: found["tasks"][name] for source, found in self.results.items() if name in found["tasks"]}
        first = next(iter(rows.values()))
        row = {key: first[key] for key in _SHARED if key in first}
        row |= {source: one["jepa"] for source, one in rows.items()}
        spread = {source: one["spread"]["jepa"] for source, one in rows.items() if "jepa" in one.get("spread", {})}
        return row | ({"spread": spread, "draws": first.get("draws")} if spread else {})

    def _baselines(self, name: str) -> dict[str, dict[str, Any]]:
        """Scores of the untrained encoder and of the raw input of each source."""
        rows = {source: one["tasks"][name] for source, one in self.results.items() if name in one["tasks"]}
        return {source: {key: row.get(key) for key in _BASELINES} for source, row in rows.items()}

    def notes(self) -> list[str]:
        """What makes rows of the sources incomparable, and other remarks."""
        found = [f"{name} is not measured: {reason}" for name, reason in self.failed.items()]
        found += self._differences("protocol", ("train_samples", *CHANGE_NO_SCORE)) + self._differences("data", ())
        for name in self.tasks:
            rows = {source: one["tasks"][name] for source, one in self.results.items() if name in one["tasks"]}
            for key in ("chance", *reversed(_SAMPLES), "test_labels"):
                if len({row[key] for row in rows.values() if key in row}) > 1:  # files of earlier versions lack some
                    what = _OTHER_LABELS if key == "test_labels" else f"{key.replace('_', ' ')} {_named(rows, key)}"
                    found.append(f"{name} is not comparable: {what}.")
                    break
        return found + list(dict.fromkeys(note for one in self.results.values() for note in one["notes"]))

    def _differences(self, section: str, without: Sequence[str]) -> list[str]:
        """A sentence for each setting of a section that differs between the sources."""
        sections = {name: one.get(section, {}) for name, one in self.results.items()}
        keys = dict.fromkeys(key for one in sections.values() for key in one if key not in without)
        return [
            f"{section}.{key} differs: {_named(sections, key)}; evaluate all with the same settings."
            for key in keys
            if len({json.dumps(one.get(key)) for one in sections.values()}) > 1
        ]

    def content(self) -> dict[str, Any]:
        """What results.json holds."""
        about = ("source", "modality", "steps", "network", "data", "collapse")
        sources = {name: {key: one.get(key) for key in about} for name, one in self.results.items()}
        tasks = {name: row | {"baselines": self._baselines(name)} for name, row in self.tasks.items()}
        return {"sources": sources, "tasks": tasks, "notes": self.notes(), "failed": self.failed}


def compare(sources: Sequence[str], request: Request, *, again: bool = False) -> Comparison:
    """Evaluate each source as the request says, and write the joined results; results that exist are read.

    sources: as in `open_source`, or results.json of an evaluation. request: its source does not count. again: evaluate
    also what has results. The results of a source are written as soon as it is evaluated. Raises ConfigError.
    """
    names = names_of(sources)
    about = json.dumps([list(sources), [str(layer) for layer in request.layers], list(request.tasks), request.modality])
    folder = request.output or EVALUATIONS / f"compare-{digest(about)}"
    request = _with_common_settings([source for source in sources if not _holds_results(source)], request)
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for name, source in zip(names, sources, strict=True):
        CONSOLE.print(shown(f"{name}: {source}"))
        try:
            results[name] = _results(replace(request, source=source, output=folder / name), again)
        except UserError as error:  # the others are still worth comparing
            print_error(f"{name}: {error}")
            failed[name] = str(error)
    if not results:
        raise ConfigError("none of the sources could be evaluated")
    comparison = Comparison(folder, results, failed)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    write_text(path, json.dumps(comparison.content(), indent=1) + "\n", path.with_suffix(".partial"))
    return comparison


def names_of(sources: Sequence[str]) -> list[str]:
    """A short name for each source, by which folders and columns are called; raises ConfigError for the same twice."""
    if len(set(sources)) < len(sources):
        raise ConfigError("a source is named twice")
    short = [plain_name_of(source) for source in sources]
    long = [plain_name_of(str(source).replace("/", "-")) for source in sources]
    reserved = (*_SHARED, *_BASELINES, "baselines", "spread", "draws", "results.json")
    names: list[str] = []
    for one, whole in zip(short, long, strict=True):
        name = whole if short.count(one) > 1 or one in reserved or not one else one
        others = {*names, *reserved}
        numbered = (f"{name}-{number}" for number in range(2, len(sources) + len(others) + 2))
        names.append(next(found for found in (name, *numbered) if found and found not in others))
    return names


def _results(request: Request, again: bool) -> dict[str, Any]:
    """The results of a source: read if it names results or has been evaluated in this way, otherwise computed."""
    if path := _holds_results(str(request.source)):
        return _read(path)
    assert request.output is not None
    path = request.output / "results.json"
    if path.exists() and not again:
        found = _read(path)
        if found.get("request") == json.loads(json.dumps(request.record())):
            written = datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(" ", "minutes")
            CONSOLE.print(shown(f"results exist, written {written}, and are read: {path}"))
            CONSOLE.print("if the data has changed since, --again computes them anew")
            return found
    return evaluate(request, say=True)[0]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as results: {error}") from error
    if not isinstance(found, dict) or not {"tasks", "notes", "modality"} <= found.keys():
        raise ConfigError(f"{path} holds no results of an evaluation")
    return found


def _holds_results(source: Path | str) -> Path | None:
    """The results that a source names: a file `*.json`, or a folder with results.json that is no run."""
    path = Path(source)
    if path.suffix == ".json" and path.is_file():
        return path
    inside = path / "results.json"
    return inside if inside.is_file() and run_of(path) is None and not (path / "config.json").exists() else None


def _with_common_settings(sources: Sequence[str], request: Request) -> Request:
    """The request with one protocol for all, and without data, with the data of the first source that has its own."""
    base: dict[str, Any] = {"evaluate": plain(EvaluateConfig()), "compute": {"precision": ComputeConfig().precision}}
    modality, wants_data = request.modality, True
    for source in sources:
        if family_name(source):
            continue
        try:
            opened = open_source(source, trust=request.trust or run_of(source) is not None)
        except UserError:
            continue  # its evaluation says why
        modality = modality or opened.config.modality
        changes = as_tree(request.layers, Config.of(type(opened.modality)))
        data: Tree = own_data(opened)
        if wants_data and not names_data(changes) and data:
            base |= data
            CONSOLE.print(shown(f"data of {source}: {data['data'].get('root') or data['data'].get('source')}"))
            wants_data = False
    return replace(request, base=base, modality=modality)


def _named(rows: Mapping[str, Mapping[str, Any]], key: str) -> str:
    return ", ".join(f"{row.get(key)} ({name})" for name, row in rows.items())
