"""`jepa export RUN FILE`: write a run's checkpoint, sharded or not, as one file."""

from collections.abc import Sequence
from pathlib import Path

from jepa.checkpoint.file import Step
from jepa.config import ConfigError
from jepa.console import CONSOLE, add_step, command_parser, shown
from jepa.errors import exit_status
from jepa.weights.load import read_checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa export` -> exit status."""
    parser = command_parser("export", "Write a run's checkpoint as one file.", "runs/demo demo.pt")
    parser.add_argument("run", type=Path, help="run directory, checkpoint file or folder of shards")
    parser.add_argument("file", type=Path, help="file to write; an existing one is not overwritten")
    add_step(parser)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: export(arguments.run, arguments.file, arguments.step))


def export(run: Path, file: Path, step: Step | None = None) -> int:
    """Write a run's checkpoint, the latest or that of a step, as one file.

    Raises CheckpointError, and ConfigError if the file exists.
    """
    if file.exists():
        raise ConfigError(f"{file} exists; name a new file")
    checkpoint = read_checkpoint(run, step=step)
    checkpoint.save(file)
    CONSOLE.print(f"step {checkpoint.step} of {shown(run)}: {shown(file)}")
    return 0
