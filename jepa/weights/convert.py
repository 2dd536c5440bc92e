"""`jepa convert SRC DST --to FORMAT`: write a trained model for another library, and check what was written."""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

from jepa.console import CONSOLE, add_step, command_parser, shown
from jepa.disk import writing
from jepa.errors import exit_status
from jepa.plugins.registry import declared_name
from jepa.probe.protocol import Which
from jepa.probe.saved import SavedProbe
from jepa.weights.formats.export import Export, FormatError, Written
from jepa.weights.formats.obstacles import in_positions
from jepa.weights.formats.probes import check_probe, holds_probe, read_probe, write_official
from jepa.weights.opened import open_source


class Target(NamedTuple):
    """A format to write. modules: in `jepa.weights.formats`, by modality; several if they differ by the networks.

    endings: of file names; none for a folder.
    """

    modules: dict[str, tuple[str, ...]]
    endings: tuple[str, ...]
    about: str


ANY = "any modality"
_IMAGE_OR_VIDEO = {"image": ("ijepa_official",), "video": ("vjepa_official", "vjepa2_official")}
TARGETS = {
    "openjepa": Target({ANY: ("openjepa",)}, (".pt",), "checkpoint file of all networks"),
    "hf": Target({"image": ("ijepa_transformers",), "video": ("vjepa2_transformers",)}, (), "folder for transformers"),
    "timm": Target({"image": ("ijepa_timm",)}, (".safetensors",), "weights of the encoder for timm"),
    "official": Target(_IMAGE_OR_VIDEO, (".pth.tar", ".pt"), "file for the code of the method's authors"),
    "onnx": Target({ANY: ("onnx",)}, (".onnx",), "graph of the encoder for onnxruntime"),
    "torch-export": Target({ANY: ("torch_export",)}, (".pt2",), "graph of the encoder that torch loads alone"),
}
_GRAPHS = ("onnx", "torch-export")


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa convert` -> exit status."""
    parser = command_parser(
        "convert",
        "Write a trained model as a file or folder of another format, then load that and compare the features.",
        "runs/demo demo-hf --to hf",
        "runs/demo demo.onnx --to onnx --resolution 128",
    )
    parser.add_argument("source", metavar="SRC", help="run directory, checkpoint, or any other source of weights")
    parser.add_argument("path", metavar="DST", type=Path, help="file or folder to write; an existing one is kept")
    formats = "; ".join(f"{name}: {target.about}{' '.join(['', *target.endings])}" for name, target in TARGETS.items())
    parser.add_argument("--to", required=True, choices=TARGETS, help=formats)
    parser.add_argument("--which", choices=get_args(Which), help="the encoder to write (default: the evaluated one)")
    parser.add_argument("--resolution", type=int, metavar="PIXELS", help="pixels per side of a graph")
    add_step(parser)
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="operator set of ONNX (default: 18)")
    parser.add_argument("--probe", type=Path, metavar="FILE", help="attentive probe to put on the encoder (hf)")
    parser.add_argument("--only-probe", action="store_true", help="write the attentive probe of SRC alone")
    parser.add_argument("--number", type=int, default=0, metavar="N", help="which of several probes in a file")
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads of a probe whose file does not say")
    parser.add_argument("--trust", action="store_true", help="import code that the checkpoint names")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: convert(arguments))


def convert(arguments: argparse.Namespace) -> int:
    """Write a model in another format, and say what was left out and how to load it."""
    to, path, resolution = arguments.to, arguments.path, arguments.resolution
    check_new(path)
    if arguments.only_probe or holds_probe(Path(arguments.source)):
        return convert_probe(arguments)
    if (endings := TARGETS[to].endings) and not path.name.endswith(endings):
        raise FormatError(f"{path}: the name of a file of --to {to} ends in {' or '.join(endings)}")
    if resolution is not None and to not in _GRAPHS:
        raise FormatError(f"--resolution is for --to {' and '.join(_GRAPHS)}; other libraries change it as they load")
    if arguments.probe is not None and to != "hf":
        raise FormatError("--probe is for --to hf; jepa convert PROBE DST --to official writes a probe alone")
    overrides = [] if resolution is None else [f"data.image_size={resolution}"]
    written = write(to, export_of(arguments, overrides), path)
    for sentence in written.left_out:
        CONSOLE.print(f"left out: {shown(sentence)}")
    CONSOLE.print(f"{shown(arguments.source)} -> {shown(path)}\nload it with {shown(written.loaded_from(path))}")
    return 0


def convert_probe(arguments: argparse.Namespace) -> int:
    """Write an attentive probe alone."""
    probe = _probe_of(Path(arguments.source), arguments)
    if arguments.to not in ("openjepa", "official"):
        raise FormatError("an attentive probe alone is for --to openjepa or official; --probe puts it on an encoder")
    if arguments.to == "official" and probe.normed:
        raise FormatError(
            f"{arguments.source}: the authors' probes take tokens that are not layer-normed first; "
            "train it with evaluate.attentive_norm=false"
        )
    with new_path(arguments.path) as aside:
        if arguments.to == "official":
            write_official(probe, aside)
        else:
            probe.save(aside)
        check_probe(probe, read_probe(aside)[0])
    CONSOLE.print(f"all {len(probe.weights)} weights are equal\n{shown(arguments.source)} -> {shown(arguments.path)}")
    return 0


def _probe_of(path: Path, arguments: argparse.Namespace) -> SavedProbe:
    """The probe in a file; says what was chosen or assumed."""
    probe, notes = read_probe(path, arguments.number, arguments.heads)
    for sentence in notes:
        CONSOLE.print(f"{shown(path)}: {shown(sentence)}")
    return probe


def export_of(arguments: argparse.Namespace, overrides: Sequence[str]) -> Export:
    """The model that the command line names."""
    opened = open_source(arguments.source, overrides, step=arguments.step, trust=arguments.trust)
    which: Which = arguments.which or opened.config.evaluated_encoder
    return Export(
        source=opened.source,
        checkpoint=opened.checkpoint,
        config=opened.config,
        modality=opened.modality,
        encoder=opened.encoder(which),
        which=which,
        opset=arguments.opset,
        probe=None if arguments.probe is None else _probe_of(arguments.probe, arguments),
    )


def write(to: str, export: Export, path: Path) -> Written:
    """Write a file or folder that is complete and checked when it gets its name. Raises FormatError."""
    module, obstacle = suited(to, export)
    if obstacle:
        others = [f"--to {name}" for name in TARGETS if name != to and not suited(name, export)[1]]
        raise FormatError(f"{export.source}: --to {to} cannot express {obstacle}; use {' or '.join(others)}")
    with new_path(path) as aside:
        try:
            written: Written = module.write(export, aside)
        except ValueError as error:  # a weight without a name there
            raise FormatError(f"{export.source}: --to {to}: {error}") from error
        try:
            checked = module.check(aside, export)
        except ImportError as error:
            checked = f"not checked, as {error.name} is not installed"
        CONSOLE.print(checked)
    return written


def suited(to: str, export: Export) -> tuple[Any, str]:
    """The module that writes a model in a format, and what that format has no place for; "" if it has for all."""
    modality = declared_name(export.config.modality)
    names = TARGETS[to].modules.get(modality) or TARGETS[to].modules.get(ANY, ())
    if not names:
        return None, f"modality {modality}"
    modules = [import_module(f"jepa.weights.formats.{name}") for name in names]
    kinds = {module: getattr(module, "POSITIONS", ()) for module in modules}  # none: of any kind
    module = next((one for one, known in kinds.items() if export.config.model.positions in known), modules[0])
    return module, module.obstacle(export) or in_positions(export, [one for known in kinds.values() for one in known])


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
