"""`python -m jepa.evaluate RUN_DIR`: evaluate the frozen features of a trained encoder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa.checkpoint.file import find_checkpoint
from jepa.console import command_parser
from jepa.errors import exit_status
from jepa.evaluate.run import evaluate_run


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a run from the command line -> exit status."""
    parser = command_parser(
        "evaluate",
        "Evaluate a trained encoder with probes on its frozen features, beside the untrained encoder, "
        "baselines such as the raw input, and chance. With overrides, --task or --step, results go to "
        "RUN/evaluations/.",
        "runs/demo --task class/linear evaluate.train_samples=1000",
    )
    parser.add_argument("run", help="run directory, or checkpoint file")
    parser.add_argument(
        "--task", action="append", default=[], metavar="NAME", help="a task (class) or one of its rows (class/knn)"
    )
    parser.add_argument("--step", type=int, metavar="N", help="a step whose checkpoint was kept (keep_every)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="settings that override those of the run, such as data.root=DIR",
    )
    return exit_status(lambda: _evaluate(parser.parse_intermixed_args(argv)))


def _evaluate(arguments: argparse.Namespace) -> int:
    run = arguments.run if arguments.step is None else find_checkpoint(Path(arguments.run), arguments.step)
    evaluate_run(run, tasks=arguments.task, layers=arguments.overrides, say=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
