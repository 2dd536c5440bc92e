"""`jepa data check PATH`: what a run would read, how fast, what is bad, and a mosaic of what the network sees."""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jepa.config import ConfigError
from jepa.console import CONSOLE, command_parser, printer, shown
from jepa.data import open_split
from jepa.data.summary import summary_lines
from jepa.data_check.lines import bad_lines, lines
from jepa.data_check.mosaic import write_mosaic
from jepa.data_check.reading import SplitCheck, check_split, spread
from jepa.disk.cache import user_cache
from jepa.disk.columns import IndexFolder
from jepa.errors import UserError, exit_status
from jepa.modality import Modality, Split
from jepa.plugins.registry import modality_class, names
from jepa.settings.recipe import chosen_recipe
from jepa.settings.resolve import resolve
from jepa.training.config import Config

SPLITS: Sequence[Split] = get_args(Split)


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa data check` and `jepa data index` -> exit status: 1 if a sample is bad."""
    actions = {"check": _check, "index": _index}
    arguments = _parser().parse_intermixed_args(argv)
    return exit_status(lambda: actions[arguments.action](arguments))


def _index(arguments: argparse.Namespace) -> int:
    """Write the index of a data set, for runs that start later."""
    name, config, modality = _opened(arguments)
    folder = arguments.run_dir / "index" if arguments.run_dir else user_cache("index")
    index = modality.index_folder = IndexFolder(folder, writes=True, rebuilds=arguments.rebuild, least=0)
    CONSOLE.print(shown(f"modality: {name}; source: {config.data.source}"))
    for line in summary_lines(modality, SPLITS):
        CONSOLE.print(shown(line))
    index.close()
    if not index.used:
        raise ConfigError(f"data.source={config.data.source} needs no index; lists, folders and tar files have one")
    size = sum((folder / file).stat().st_size for file in index.used)
    CONSOLE.print(shown(f"index: {size / 2**20:,.1f} MB in {folder}"))
    return 0


def _opened(arguments: argparse.Namespace) -> tuple[str, Config[Any, Any], Modality[Any]]:
    """The name of the modality, its config, and itself, as the command line names them."""
    settings = list(arguments.overrides)
    path = arguments.path
    if path and "=" in path and not Path(path).exists():
        settings, path = [path, *settings], None
    if path and any(setting.startswith("data.root=") for setting in settings):
        raise ConfigError(f"{path} and data.root both name the data; give one of them")
    name = arguments.modality or _only_reader(path, arguments.config, settings)
    return name, *_configured(name, path, arguments.config, settings)


def _check(arguments: argparse.Namespace) -> int:
    name, config, modality = _opened(arguments)
    modality.index_folder = IndexFolder(user_cache("index"))
    mosaic = _mosaic_path(arguments.mosaic, config.data.root)
    console = printer(soft_wrap=True)
    console.print(shown(f"modality: {name}; source: {config.data.source}"))
    for line in summary_lines(modality, SPLITS):
        console.print(shown(line))
    checks = _read(modality, arguments.samples, config.seed)
    for line in [*(f"warning: {each}" for each in modality.data_warnings()), *lines(modality, checks)]:
        console.print(shown(line))
    pictures = [picture for check in checks for picture in check.pictures]
    if pictures:
        count = write_mosaic(pictures, mosaic)
        console.print(shown(f"mosaic: {count} training views as the network sees them, in {mosaic}"))
    else:
        console.print("no mosaic: no training sample can be read, or the modality draws no pictures")
    for number, text in enumerate(checks[0].descriptions, start=1):
        console.print(shown(f"picture {number}: {text[:300]}"))
    for line in bad_lines(checks, config.data.max_bad_fraction):
        console.print(shown(line))
    return 1 if any(check.bad for check in checks) else 0


def _configured(
    name: str, path: str | None, recipe: str | None, settings: Sequence[str]
) -> tuple[Config[Any, Any], Modality[Any]]:
    root = [f"data.root={path}"] if path else []
    return resolve(name, chosen_recipe(name, recipe).tree, [*root, *settings])


def _only_reader(path: str | None, recipe: str | None, settings: Sequence[str]) -> str:
    """The modality that reads a path, if it is the only one; those that need `data.source` must be named."""
    if path is None:
        raise ConfigError("give the PATH of the data, or --modality with settings")
    if not Path(path).expanduser().exists():
        raise ConfigError(f"{path} does not exist")
    if recipe:
        raise ConfigError("--config needs --modality")
    readers, reasons = [], []
    for name in names():
        try:
            if "source" in modality_class(name).config_type.completed:
                _configured(name, path, recipe, settings)
                readers.append(name)
        except UserError as error:  # it does not read the path, or lacks a setting
            reasons.append(f"{name}: {error}")
    if len(readers) > 1:
        raise ConfigError(f"the modalities {' and '.join(readers)} read {path}; name one with --modality")
    if not readers:
        raise ConfigError(f"no modality finds its files in {path}; name one with --modality ({'; '.join(reasons)})")
    return readers[0]


def _mosaic_path(chosen: Path | None, root: Path | None) -> Path:
    """The file of the mosaic; by default in the current folder, or the temporary one if that is part of the data.

    Raises ConfigError if the mosaic would become a sample.
    """
    choices = [chosen] if chosen else [Path("data_check.png"), Path(tempfile.gettempdir()) / "data_check.png"]
    data = root.expanduser().resolve() if root else None
    outside = [path for path in choices if data is None or not path.resolve().is_relative_to(data)]
    if not outside:
        raise ConfigError(f"the mosaic {choices[0]} would lie among the data in {root}; set another --mosaic")
    return outside[0]


def _read(modality: Modality[Any], count: int, seed: int) -> list[SplitCheck]:
    """Check every split, on one core, with a progress bar on terminals."""
    total = sum(len(spread(len(open_split(modality, split)), count)) for split in SPLITS)
    columns = (TextColumn("reading"), MofNCompleteColumn(), BarColumn(bar_width=None), TimeRemainingColumn())
    with Progress(*columns, console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal) as bar, _one_core():
        task = bar.add_task("", total=total)
        return [check_split(modality, split, count, seed, lambda: bar.advance(task)) for split in SPLITS]


@contextmanager
def _one_core() -> Iterator[None]:
    """One thread, as in the processes that prepare batches."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "data",
        "Check data before a run: read some samples of every split, report what the splits and classes are, how fast "
        "they are read and which are bad, and write a mosaic of what the network sees. Status 1 if a sample is bad. Or "
        "write the index of large data, so that runs that start later need not list it.",
        "check photos",
        "index --modality video data.root=videos.csv",
        "check photos --modality image --samples 0 data.image_size=96",
    )
    parser.add_argument("action", choices=["check", "index"])
    parser.add_argument("path", nargs="?", help="folder or file that holds the data, as data.root")
    parser.add_argument("--modality", help="one of `jepa modalities` (default: the only one that reads the path)")
    parser.add_argument("--config", help="recipe, by name or path of a YAML file (default: as `jepa launch`)")
    parser.add_argument(
        "--samples", type=_count, default=200, metavar="N", help="samples of each split, evenly spread; 0 for all"
    )
    parser.add_argument("--mosaic", type=Path, metavar="FILE", help="where to write it (default: data_check.png)")
    parser.add_argument("--run-dir", type=Path, help="index: the run that it is for (default: the cache, for all runs)")
    parser.add_argument(
        "--rebuild", action="store_true", help="index: list the data even if nothing seems to have changed"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that override the recipe")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return int(text)
