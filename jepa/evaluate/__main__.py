"""`python -m jepa.evaluate RUN_DIR`: evaluate the frozen features of a trained encoder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa.console import add_step, command_parser
from jepa.errors import exit_status
from jepa.evaluate.request import Request
from jepa.evaluate.run import evaluate_and_print


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a run from the command line -> exit status."""
    parser = command_parser(
        "evaluate",
        "Evaluate an encoder with probes on its frozen features, beside the untrained encoder, baselines such as the "
        "raw input, and chance. The source is a run, a weight file of this or another project, timm:NAME, "
        "timm:NAME@FILE or open_clip:NAME@TAG. Of a run with overrides, --task or --step, results go to "
        "RUN/evaluations/; of any other source to a folder in evaluations/.",
        "runs/demo --task class/linear evaluate.train_samples=1000",
        "timm:vit_small_patch14_dinov2.lvd142m data.source=scenes data.image_size=224",
    )
    add_options(parser)
    parser.add_argument("source", help="run directory, or any other source of an encoder")
    add_step(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="settings that override those of the run, such as data.root=DIR",
    )
    return exit_status(lambda: _evaluate(parser.parse_intermixed_args(argv)))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that `jepa compare` has too."""
    parser.add_argument(
        "--task", action="append", default=[], metavar="NAME", help="a task (class) or one of its rows (class/knn)"
    )
    parser.add_argument("--modality", metavar="NAME", help="of the data: image or video; a run knows its own")
    parser.add_argument("--output", "-o", type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--trust", action="store_true", help="import code that a checkpoint names")


def _evaluate(arguments: argparse.Namespace) -> int:
    request = Request(
        source=arguments.source,
        tasks=arguments.task,
        layers=arguments.overrides,
        modality=arguments.modality,
        step=arguments.step,
        trust=arguments.trust,
        output=arguments.output,
    )
    evaluate_and_print(request, say=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
