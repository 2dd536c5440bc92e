"""The data that a run trains on, as recorded in its run directory: a resumed run says if it has changed."""

import json
from pathlib import Path
from typing import Any

from jepa.checkpoint import latest
from jepa.console import CONSOLE, shown, warn_once
from jepa.data import DataError, open_split, say_data
from jepa.data.summary import digest_of, summary_of
from jepa.disk import write_text
from jepa.distributed import World
from jepa.modality import Modality, Samples
from jepa.training.config import Config

RECORD = "data.json"


def announce_data(config: Config[Any, Any], modality: Modality[Any], samples: Samples, world: World) -> None:
    """Print what a run reads, and record its training samples; raises DataError, and PeerError in other processes."""
    with world.error_barrier():
        if world.is_main:
            say_data(modality, config.evaluate, config.probe.every > 0)
            record_data(config.run_dir, samples)


def record_data(run_dir: Path, samples: Samples) -> None:
    """Write the number of training samples and a digest of their names; warn if a resumed run had others."""
    if (change := _change(_recorded(run_dir / RECORD), samples)) and latest(run_dir).exists():
        CONSOLE.print(
            shown(
                "warning: the training data has changed since the run was started or last resumed: "
                f"{change}; the order of samples differs from that of an uninterrupted run"
            ),
            style="yellow",
        )
    path = run_dir / RECORD
    write_text(path, json.dumps(_record(samples)) + "\n", path.with_suffix(".partial"))


def evaluated_data_change(run_dir: Path, modality: Modality[Any]) -> str:
    """How the training samples of a modality differ from those of a run; without a record, none are opened."""
    had = _recorded(run_dir / RECORD)
    if not had:
        return ""
    try:
        return _change(had, open_split(modality, "train"))
    except DataError as error:  # an evaluation may read other splits only
        return f"it has no training samples to compare ({error})"


def _change(had: dict[str, Any], samples: Samples) -> str:
    """How samples differ from recorded ones, as a clause; empty if they do not, or if nothing is recorded."""
    if not had or had == (has := _record(samples)):
        return ""
    summary, count = summary_of(samples), has["samples"]
    if had["samples"] != count:
        return f"it had {had['samples']:,} {summary.noun} and now has {count:,}"
    return f"it now has {count:,} other {summary.noun} {summary.where}".rstrip()


def _record(samples: Samples) -> dict[str, Any]:
    return {"samples": len(samples), "digest": digest_of(samples)}


def _recorded(path: Path) -> dict[str, Any]:
    """What was recorded before; empty, with a warning, if the file was damaged, as by a crash of the machine."""
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or (found and not {"samples", "digest"} <= found.keys()):
        warn_once(f"{path} is damaged, so this run cannot tell whether its training data has changed")
        return {}
    return found
