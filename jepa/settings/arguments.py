"""The command line of `jepa launch`."""

import argparse
from collections.abc import Sequence

from jepa.config import ConfigError
from jepa.console import command_parser
from jepa.distributed.starter import process_count
from jepa.plugins.registry import names


def launch_arguments(given: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line; raises ConfigError if they name the run directory twice."""
    arguments = launch_parser().parse_intermixed_args(given)
    several = arguments.run_dir or arguments.sweep or arguments.seeds
    if several and any(text.startswith("run_dir=") for text in (*arguments.overrides, *arguments.sweep)):
        raise ConfigError("run_dir: name the directory of the run, or of several runs, once, by --run-dir")
    return arguments


def _from_one(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return int(text)


def launch_parser() -> argparse.ArgumentParser:
    """The parser of `jepa launch`."""
    parser = command_parser(
        "launch",
        "Pretrain, evaluate and report. The same command again resumes a run that was stopped.",
        "--modality image --run-dir runs/demo steps=500 optim.peak_lr=5e-4",
        "--modality image --run-dir runs/cluster --slurm local",
        "--modality image --run-dir runs/sweep --sweep optim.peak_lr=5e-4,1e-3 --seeds 2",
    )
    parser.add_argument(
        "--modality",
        required=True,
        help=f"installed: {', '.join(names())} (see `jepa modalities`), or package.module:Class",
    )
    parser.add_argument(
        "--config", help="recipe, by name or path of a YAML file (default: the modality's own, or its tiny one)"
    )
    parser.add_argument("--run-dir", help="run directory, for all files of the run (default: runs/MODALITY-HASH)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and its cost, and exit")
    parser.add_argument(
        "--keep-unused", action="store_true", help="report settings without effect instead of refusing them"
    )
    parser.add_argument(
        "--train-only", action="store_true", help="neither evaluate nor report; the same command without it does both"
    )
    parser.add_argument(
        "--processes",
        type=process_count,
        default=1,
        metavar="N",
        help="processes that train, sharing the cores or GPUs here; auto: one per GPU, or two on CPUs (default: 1)",
    )
    many = parser.add_argument_group("several runs")
    many.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="one run for each value; repeat it for more keys",
    )
    many.add_argument(
        "--seeds", type=_from_one, default=0, metavar="N", help="repeat each run with the seeds 0 to N - 1"
    )
    cluster = parser.add_argument_group("on a cluster")
    cluster.add_argument(
        "--slurm", metavar="PROFILE", help="submit to a cluster; profile by name or path, or `local`, `debug`"
    )
    cluster.add_argument("--nodes", type=int, help="nodes, instead of the profile's")
    cluster.add_argument("--gpus", type=int, help="GPUs of each node, instead of the profile's")
    cluster.add_argument(
        "--time", type=float, metavar="HOURS", help="time limit of each attempt, instead of the profile's"
    )
    cluster.add_argument("--partition", help="partition, instead of the profile's")
    cluster.add_argument("--slurm-dry-run", action="store_true", help="write the batch script and exit")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that override the recipe")
    return parser
