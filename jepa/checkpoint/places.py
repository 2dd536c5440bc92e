"""Where the checkpoints of a run are; each is a file, or a link to a folder of shards."""

from pathlib import Path
from typing import Literal

Step = int | Literal["best"]  # of a checkpoint: its number, or that with the best score of the probe

FOLDER = "checkpoints"  # in a run directory


def latest(run_dir: Path) -> Path:
    """Path of the checkpoint from which a run resumes: a file, or a link to a folder of shards."""
    return run_dir / FOLDER / "latest.pt"


def best(run_dir: Path) -> Path:
    """Path of the checkpoint with the best score of the probe so far: a file, or a link to a folder of shards."""
    return run_dir / FOLDER / "best.pt"


def kept(run_dir: Path, step: int) -> Path:
    """Path of a checkpoint that stays when later ones are written: a file, or a folder of shards."""
    return run_dir / FOLDER / f"step_{step}.pt"


def shards_folder(run_dir: Path, step: int, keep: bool = False) -> Path:
    """The folder that shards are written to; keep: as `kept`."""
    return kept(run_dir, step) if keep else run_dir / FOLDER / f"step_{step}"
