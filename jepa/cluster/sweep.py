"""Sweeps: one run per combination of settings, with directories named after the settings."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from jepa.checkpoint.file import latest, read_step
from jepa.cluster.job import read_json, write_json
from jepa.config import ConfigError, read_yaml
from jepa.config.overrides import read_values, types_at
from jepa.console import CONSOLE, shown
from jepa.distributed import stop_on_signals
from jepa.errors import INTERRUPTED, print_error
from jepa.probe.protocol import CHANGE_NO_SCORE
from jepa.training.log import read_metrics


class Variant(NamedTuple):
    name: str  # of the run directory
    values: dict[str, Any]  # section.key -> value

    @property
    def overrides(self) -> list[str]:
        """The values as `section.key=value` arguments; null is the empty text."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.values.items()}
        return [f"{key}={'' if self.values[key] is None else text}" for key, text in texts.items()]


def variants(sweeps: Sequence[str], seeds: int, config_type: Any = Any) -> list[Variant]:
    """`section.key=value,value,...` and a number of seeds -> every combination of values; seeds vary fastest.

    Each value is read like that of an override of this type of config. Raises ConfigError.
    """
    axes = dict(parse_axis(text, config_type) for text in sweeps)
    if len(axes) < len(sweeps):
        raise ConfigError("--sweep: a key is given twice; give all its values at once")
    if seeds and "seed" in axes:
        raise ConfigError("--seeds: --sweep already gives values of 'seed'")
    if seeds:
        axes["seed"] = list(range(seeds))
    short = {key: key.rpartition(".")[2] for key in axes}
    names = {key: part if list(short.values()).count(part) == 1 else key for key, part in short.items()}
    found = []
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        name = ",".join(f"{names[key]}={_slug(value)}" for key, value in chosen.items())
        found.append(Variant(name, chosen))
    if len({variant.name for variant in found}) < len(found):
        raise ConfigError("--sweep: two runs have the same name; is a value given twice?")
    return found


def parse_axis(text: str, config_type: Any) -> tuple[str, list[Any]]:
    """`section.key=a,b` -> its key and values."""
    key, equals, values = text.partition("=")
    if not equals or not all(key.split(".")) or not values:
        raise ConfigError(f"--sweep '{text}' is not of the form section.key=value,value,...")
    return key, read_values(values, types_at(config_type, key.split(".")), f"--sweep {key}")


def _slug(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=("_", "-"))
    return re.sub(r"[^A-Za-z0-9.+_-]", "", text)


def write_sweep(folder: Path, planned: Sequence[Variant]) -> None:
    """Add the runs to sweep.json; earlier runs of the sweep stay."""
    known = {**read_sweep(folder), **{variant.name: variant.values for variant in planned}}
    write_json(folder / "sweep.json", {"runs": known})


def read_sweep(folder: Path) -> dict[str, dict[str, Any]]:
    """Runs of a sweep by name, with their values; empty if there is no sweep."""
    runs: dict[str, dict[str, Any]] = read_json(folder / "sweep.json").get("runs", {})
    return runs


def is_finished(run_dir: Path, *, train_only: bool = False) -> bool:
    """Whether a run has been trained to its end, and evaluated and reported if its config asks for that.

    train_only: whether training alone is asked for, whatever the config says.
    """
    if not (run_dir / "config.yaml").exists():
        return False
    config, lines = read_yaml(run_dir / "config.yaml"), read_metrics(run_dir)
    if not train_only and not _are_of(read_json(run_dir / "results.json"), config["evaluate"]):
        return False  # an evaluation with other settings was begun since, and did not end
    asked = {"results.json": config["evaluate"]["enabled"], "report.html": config["evaluate"].get("report", True)}
    expected = [run_dir / name for name, is_written in asked.items() if is_written and not train_only]
    if not (lines and lines[-1]["step"] == config["steps"] and all(path.exists() for path in expected)):
        return False
    # The last metrics are written before the last checkpoint.
    return bool(expected) or (latest(run_dir).exists() and read_step(latest(run_dir)) == config["steps"])


def _are_of(results: dict[str, Any], evaluate: dict[str, Any]) -> bool:
    """Whether results, which may be missing, are of these settings; those that no file holds count as equal."""
    protocol = results.get("protocol", {})
    decided = {name: value for name, value in evaluate.items() if name not in CHANGE_NO_SCORE}
    if decided.get("train_samples") is None:
        decided.pop("train_samples", None)  # the results say how many these were
    return all(protocol.get(name, value) == value for name, value in decided.items())


def run_here(commands: dict[str, Sequence[str]]) -> int:
    """Run `jepa launch` commands in turn -> exit status.

    A failed run does not stop the others; a signal stops the current run, which saves, and the sweep.
    """
    failed = []
    for index, (name, arguments) in enumerate(commands.items()):
        CONSOLE.print(f"run {index + 1} of {len(commands)}: {shown(name)}", style="bold")
        status = _run(arguments)
        if status == INTERRUPTED:
            return INTERRUPTED
        if status != 0:
            failed.append(name)
    if failed:
        print_error(f"{len(failed)} of {len(commands)} runs failed: {'; '.join(failed)}")
    return 1 if failed else 0


def _run(arguments: Sequence[str]) -> int:
    """Exit status of a run in a new process, which receives the signals of this one."""
    with stop_on_signals() as request:
        process = subprocess.Popen([sys.executable, "-m", "jepa.launch", *arguments])
        try:
            while not request and process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
            if process.poll() is None:
                process.terminate()
            status = process.wait()
        except BaseException:  # a second Ctrl-C
            process.kill()
            raise
        return INTERRUPTED if request else status
