"""The data that a run trains on, as recorded in its run directory: a resumed run says if it has changed."""

import json
from pathlib import Path
from typing import Any

from jepa.checkpoint import latest
from jepa.console import CONSOLE, shown, warn_once
from jepa.data import say_data
from jepa.data.summary import digest_of, summary_of
from jepa.disk import write_text
from jepa.distributed import World
from jepa.modality import Modality, Samples
from jepa.training.config import Config


def announce_data(config: Config[Any, Any], modality: Modality[Any], samples: Samples, world: World) -> None:
    """Print what a run reads, and record its training samples; raises DataError, and PeerError in other processes."""
    with world.error_barrier():
        if world.is_main:
            say_data(modality, config.evaluate)
            record_data(config.run_dir, samples)


def record_data(run_dir: Path, samples: Samples) -> None:
    """Write the number of training samples and a digest of their names; warn if a resumed run had others."""
    path, noun = run_dir / "data.json", summary_of(samples).noun
    record = {"samples": len(samples), "digest": digest_of(samples)}
    before = _recorded(path) or record
    if before != record and latest(run_dir).exists():
        had, has = before["samples"], record["samples"]
        others = f"had {had:,} {noun} and now has {has:,}" if had != has else f"still has {has:,} {noun}, but others"
        CONSOLE.print(
            shown(
                f"warning: the training data has changed since the run was started or last resumed: it {others}; "
                "the order of samples differs from that of an uninterrupted run"
            ),
            style="yellow",
        )
    write_text(path, json.dumps(record) + "\n", path.with_suffix(".partial"))


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
