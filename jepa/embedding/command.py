"""The command line of `jepa embed`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa.config import ConfigError
from jepa.console import add_step, command_parser
from jepa.distributed.starter import is_started, process_count, run_processes
from jepa.embedding.outputs import FORMATS, check_format
from jepa.embedding.settings import DTYPES, POOLINGS, SPLITS, EmbedSettings, Extent
from jepa.errors import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa embed` -> exit status."""
    given = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _embed(_parser().parse_intermixed_args(given), given))


def _embed(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    check_format(arguments.output)
    words = [*filter(None, [arguments.data]), *arguments.overrides]
    paths = [word for word in words if "=" not in word or Path(word).exists()]
    overrides = [word for word in words if word not in paths]
    named = [*paths, *(text for text in overrides if text.startswith("data.root="))]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} both name the data; give one of them")
    settings = EmbedSettings(
        pooling=arguments.pooling,
        dtype=arguments.dtype,
        split=None if arguments.split == "all" else arguments.split,
        stream=arguments.stream,
        window=Extent.parse(arguments.window, "--window") if arguments.window else None,
        stride=Extent.parse(arguments.stride, "--stride") if arguments.stride else None,
        probe=arguments.probe,
    )
    if arguments.processes > 1 and not is_started():
        return run_processes(arguments.processes, "jepa.embedding.command", given)
    from jepa.embedding.job import open_job
    from jepa.embedding.run import embed_file

    layers = [*(f"data.root={path}" for path in paths), *overrides]
    job = open_job(
        arguments.source, settings, layers, modality=arguments.modality, step=arguments.step, trust=arguments.trust
    )
    embed_file(job, arguments.output, overwrite=arguments.overwrite, save_every=arguments.save_every)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "embed",
        "Write the vector of every sample of a data set, with its name and labels. A second start completes what a "
        "killed one has begun.",
        "runs/demo photos -o features.parquet",
        "runs/clips videos.csv -o features.npy --window 4s --stride 2s",
        "runs/demo photos -o features.safetensors --pooling last4 --dtype float16",
    )
    parser.add_argument("source", help="run directory, checkpoint file, or other source of `jepa.load`")
    parser.add_argument("data", nargs="?", help="folder or file of the data, as data.root (default: data of the run)")
    endings = ", ".join(FORMATS)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=f"ends in {endings}")
    parser.add_argument("--modality", metavar="NAME", help="of the data: image or video; a run knows its own")
    parser.add_argument("--split", choices=["all", *SPLITS], default="all", help="which samples (default: all)")
    parser.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="of the tokens: mean of the last layer (default), last4 as linear probes use them, all tokens, or what an "
        "attentive probe (--probe) attends to; joint: comparable vectors of images and captions (their default); own: "
        "the class token, or what else an encoder of another family pools",
    )
    parser.add_argument("--probe", type=Path, metavar="FILE", help="attentive probe for --pooling attentive")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the vectors (default: float32)")
    parser.add_argument("--stream", metavar="NAME", help="embed only images, or only text (default: both)")
    parser.add_argument("--window", metavar="LENGTH", help="slide along videos: seconds (4s) or frames (64f)")
    parser.add_argument("--stride", metavar="LENGTH", help="distance between windows (default: their length)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--save-every", type=float, default=15.0, metavar="SECONDS", help="work that a kill may cost (default: 15)"
    )
    parser.add_argument(
        "--processes",
        type=process_count,
        default=1,
        metavar="N",
        help="processes that share the work; auto: one per GPU, or two on CPUs (default: 1)",
    )
    add_step(parser)
    parser.add_argument("--trust", action="store_true", help="import code that the source names")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that override the run's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
