"""`jepa convert SRC DST --to FORMAT`: write a trained model for another library, and check what was written."""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from jepa.console import CONSOLE, command_parser, shown
from jepa.disk import writing
from jepa.errors import exit_status
from jepa.weights.formats.export import Export, FormatError, Written
from jepa.weights.load import Which, configured, encoder_of, read_checkpoint
from jepa.weights.trust import importing

# Each format: the module that writes it, and what it is.
FORMATS = {
    "openjepa": ("openjepa", "checkpoint file of all networks (.pt)"),
    "onnx": ("onnx", "graph of the encoder for onnxruntime (.onnx)"),
    "torch-export": ("torch_export", "graph of the encoder that torch loads without this package (.pt2)"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa convert` -> exit status."""
    parser = command_parser(
        "convert",
        "Write a trained model as a file or folder of another format, then load that and compare the features.",
        "runs/demo demo.onnx --to onnx",
        "runs/demo demo.pt2 --to torch-export --resolution 128",
    )
    parser.add_argument("source", metavar="SRC", help="run directory, checkpoint, or any other source of weights")
    parser.add_argument("path", metavar="DST", type=Path, help="file or folder to write; an existing one is kept")
    formats = "; ".join(f"{name}: {what}" for name, (_, what) in FORMATS.items())
    parser.add_argument("--to", required=True, choices=FORMATS, help=formats)
    parser.add_argument("--which", choices=get_args(Which), default="target_encoder", help="the encoder to write")
    parser.add_argument("--resolution", type=int, metavar="PIXELS", help="pixels per side, for formats of fixed size")
    parser.add_argument("--step", type=int, metavar="N", help="a step whose checkpoint was kept (keep_every)")
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="operator set of ONNX (default: 18)")
    parser.add_argument("--trust", action="store_true", help="import code that the checkpoint names")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: convert(arguments))


def convert(arguments: argparse.Namespace) -> int:
    """Write a model in another format, and say what was left out and how to load it."""
    source, path = arguments.source, arguments.path
    check_new(path)
    checkpoint = read_checkpoint(source, step=arguments.step)
    overrides = [] if arguments.resolution is None else [f"data.image_size={arguments.resolution}"]
    with importing(source, checkpoint.config, arguments.trust):
        config, modality = configured(checkpoint, overrides)
        encoder = encoder_of(checkpoint, config, modality, arguments.which)
    export = Export(str(source), checkpoint, config, modality, encoder, arguments.which, arguments.opset)
    written = write(arguments.to, export, path)
    for sentence in written.left_out:
        CONSOLE.print(f"left out: {shown(sentence)}")
    CONSOLE.print(f"{shown(source)} -> {shown(path)}\nload it with {written.usage}")
    return 0


def write(name: str, export: Export, path: Path) -> Written:
    """Write a file or folder that is complete and checked when it gets its name. Raises FormatError."""
    module: Any = import_module(f"jepa.weights.formats.{FORMATS[name][0]}")
    with new_path(path) as aside:
        written: Written = module.write(export, aside)
        try:
            checked = module.check(aside, export)
        except ImportError as error:
            checked = f"not checked, as {error.name} is not installed"
        CONSOLE.print(checked)
    return written


def check_new(path: Path) -> None:
    """Raise FormatError if the path exists."""
    if path.exists() or path.is_symlink():
        raise FormatError(f"{path} exists; name a new file or folder")


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """A path of the same name in a folder aside. Once the body is done, all that it wrote there moves beside `path`.

    An error removes what was written.
    """
    check_new(path)
    aside = path.with_name(path.name + ".partial")
    with writing(path):
        if aside.exists():
            shutil.rmtree(aside)  # of a process that was killed
        aside.mkdir(parents=True)
        try:
            yield aside / path.name
            for part in sorted(aside.iterdir(), key=lambda one: one.name == path.name):  # the path itself comes last
                check_new(path.with_name(part.name))
                part.rename(path.with_name(part.name))
        finally:
            shutil.rmtree(aside)
