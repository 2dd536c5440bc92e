"""`jepa export RUN FILE`: write a run's checkpoint, sharded or not, as one file."""

from collections.abc import Sequence
from pathlib import Path

from jepa.config import ConfigError
from jepa.console import CONSOLE, command_parser, shown
from jepa.errors import exit_status
from jepa.weights.load import read_checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa export` -> exit status."""
    parser = command_parser("export", "Write a run's checkpoint as one file.", "runs/demo demo.pt")
    parser.add_argument("run", type=Path, help="run directory, checkpoint file or folder of shards")
    parser.add_argument("file", type=Path, help="file to write; an existing one is not overwritten")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: export(arguments.run, arguments.file))


def export(run: Path, file: Path) -> int:
    """Write a run's checkpoint as one file; raises CheckpointError, and ConfigError if the file exists."""
    if file.exists():
        raise ConfigError(f"{file} exists; name a new file")
    checkpoint = read_checkpoint(run)
    checkpoint.save(file)
    CONSOLE.print(f"step {checkpoint.step} of {shown(run)}: {shown(file)}")
    return 0
