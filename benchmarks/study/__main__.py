"""A fair study of ways to pretrain on small data.

    python -m benchmarks.study search --data cifar10=FOLDER --arms masked_autoencoder,latent --minutes .5 --jobs 2
    python -m benchmarks.study finals --data cifar10=FOLDER --arms masked_autoencoder,latent --minutes 10
    python -m benchmarks.study curves --data cifar10=FOLDER --arms masked_autoencoder,latent --until 30
    python -m benchmarks.study report cifar10
    python -m benchmarks.study nuisance FOLDER NEW_FOLDER --noise 64

An arm is a file in benchmarks/study/arms/, or the path of such a file. Every trial is added to
benchmarks/results/study_NAME.jsonl when it ends. The same command makes what is missing; several may run at once.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, get_args

from benchmarks.study.arms import Arm, read_arm
from benchmarks.study.budget import Budget, BudgetKind
from benchmarks.study.equal import MINUTES, equal_runs
from benchmarks.study.log import Record
from benchmarks.study.nuisance import FolderImages, Nuisance, SceneImages, write
from benchmarks.study.report import report
from benchmarks.study.search import RANKED_BY, search
from benchmarks.study.trials import Part, RunFailedError, StoppedError, Study
from jepa.config import ConfigError
from jepa.console import CONSOLE
from jepa.errors import INTERRUPTED, exit_status
from modalities.worlds.scenes.dataset import ScenesConfig

RESULTS = Path(__file__).resolve().parent.parent / "results"
IMAGES = RESULTS.parent.parent / "docs" / "images"
SIZES = {"cifar10": ("data.image_size=32", "data.patch_size=4")}  # by the start of a name; others have 64 px and 8
_OPTION_OF = {  # the option that sets a setting of a study
    "data.source": "--data",
    "data.root": "--data",
    "steps": "--images, --minutes or --flops",
    "seed": "--seeds",
    "run_dir": "--work",
    "evaluate.scored_split": "--split",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says -> exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    for text in getattr(options, "overrides", []):
        if (key := text.partition("=")[0]) in _OPTION_OF:
            parser.error(f"{key} is not a setting of a study: it is set by {_OPTION_OF[key]}")
    try:
        return exit_status(lambda: int(options.act(options) or 0))
    except RunFailedError as error:
        CONSOLE.print(f"error: {error}", style="bold red", highlight=False, markup=False)
        return 1
    except StoppedError as error:
        CONSOLE.print(f"stopped by {error}; the same command resumes", highlight=False)
        return INTERRUPTED


def _print(records: Iterable[Record]) -> None:
    for number, record in enumerate(records, start=1):
        CONSOLE.print(f"{number}: {_line(record)}", highlight=False, markup=False)


def _search(options: argparse.Namespace) -> None:
    _print(search(_study(options), options.arms, options.trials, _budget(options)))


def _finals(options: argparse.Namespace) -> None:
    _print(_equal_runs(options, "final", [_budget(options)]))


def _curves(options: argparse.Namespace) -> None:
    budgets = [Budget("minutes", minutes) for minutes in MINUTES if minutes <= options.until]
    _print(_equal_runs(options, "curve", budgets))


def _equal_runs(options: argparse.Namespace, part: Part, budgets: Sequence[Budget]) -> Iterable[Record]:
    how = (options.seeds, options.split, options.searched_in)
    return equal_runs(_study(options), options.arms, part, budgets, *how)


def _report(options: argparse.Namespace) -> None:
    if options.log and len(options.names) > 1:
        raise ConfigError(
            f"--log: is the file of one data set, not of {' and '.join(options.names)}; report each alone"
        )
    for name in options.names:
        if options.log:
            report(name, options.log, options.log.parent, f"{name} --log {options.log}")
        else:
            report(name, RESULTS / f"study_{name}.jsonl", IMAGES, name)


def _nuisance(options: argparse.Namespace) -> None:
    nuisance = Nuisance(options.background, options.patches, options.noise, options.seed)
    scenes = options.source == "scenes"
    images = SceneImages(ScenesConfig(), options.size) if scenes else FolderImages(Path(options.source))
    CONSOLE.print(f"{write(images, options.out, nuisance):,} images in {options.out}", highlight=False)


def _budget(options: argparse.Namespace) -> Budget:
    kind = next(kind for kind in get_args(BudgetKind) if getattr(options, kind) is not None)
    return Budget(kind, getattr(options, kind))


def _study(options: argparse.Namespace) -> Study:
    name, place = options.data
    sizes = next((sizes for start, sizes in SIZES.items() if name.startswith(start)), ())
    log = options.log or RESULTS / f"study_{name}.jsonl"
    work = (options.work or Path("runs/study") / name).resolve()
    return Study(name, place, (*sizes, *options.overrides), log.resolve(), work, options.jobs)


def _line(record: Record) -> str:
    what = ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in record["changes"].items())
    named = f"{record['arm']} ({what}), seed {record['seed']}, {record['images']:,} images"
    if "failed" in record:
        return f"{named}: {record['failed']}"
    rows = [row for row in (*RANKED_BY, "class/attentive") if row in record["scores"]]
    scores = ", ".join(f"{row.removeprefix('class/')} {record['scores'][row]['jepa']:.3f}" for row in rows)
    return f"{named}: {scores}, RankMe {record['scores']['rankme']['jepa']:.0f}, {record['cpu_seconds']} CPU s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("search", help="successive halving over the search space of each arm")
    one.set_defaults(act=_search)
    one.add_argument("--trials", type=_positive(int), default=9, help="of each arm in the first rung (default: 9)")
    _add_budget(one)
    _add_common(one)
    one = commands.add_parser("finals", help="the best settings of each arm with several seeds, on the test split")
    one.set_defaults(act=_finals)
    _add_budget(one)
    _add_common(one, seeds=3, split="test")
    one = commands.add_parser("curves", help="the best settings of each arm at 1, 3, 10, 30 and 100 minutes")
    one.set_defaults(act=_curves)
    one.add_argument("--until", type=_positive(float), default=MINUTES[-1], help="largest budget, in minutes")
    _add_common(one, seeds=1, split="validation")
    one = commands.add_parser("report", help="tables and figures of the trials that are logged")
    one.set_defaults(act=_report)
    one.add_argument("names", nargs="+", metavar="NAME", help="of the data, as in --data")
    one.add_argument("--log", type=Path, help="file of the trials; pages and figure are written beside it")
    one = commands.add_parser("nuisance", help="write images with noise, other backgrounds, pasted patches")
    one.set_defaults(act=_nuisance)
    one.add_argument("source", metavar="FOLDER|scenes", help="images by split and class")
    one.add_argument("out", type=Path, metavar="NEW_FOLDER")
    one.add_argument("--noise", type=float, default=0, help="standard deviation of Gaussian noise, of 255")
    one.add_argument("--background", type=float, default=0, help="share of another image at the border, 0 to 1")
    one.add_argument("--patches", type=int, default=0, help="pasted squares of other images")
    one.add_argument("--size", type=_positive(int), default=64, help="pixels per side of scenes (default: 64)")
    one.add_argument("--seed", type=int, default=0)
    return parser


def _add_budget(parser: argparse.ArgumentParser) -> None:
    """The budget of a run; of a search, that of a trial of the first rung."""
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=_positive(float), help="of two cores, 90 CPU seconds each")
    budget.add_argument("--flops", type=_positive(float), help="floating-point operations")
    budget.add_argument("--images", type=_positive(int), help="images seen")


def _add_common(parser: argparse.ArgumentParser, seeds: int = 0, split: str = "") -> None:
    if seeds:
        parser.add_argument("--seeds", type=_positive(int), default=seeds, help=f"of each run (default: {seeds})")
        parser.add_argument("--split", choices=("validation", "test"), default=split, help=f"default: {split}")
        searched = "log of a study of other data whose searches found the settings (default: --log)"
        parser.add_argument("--searched-in", type=_file, metavar="LOG", help=searched)
    parser.add_argument("--data", type=_data, required=True, metavar="NAME=FOLDER|scenes", help="images by class")
    parser.add_argument("--arms", type=_arms, required=True, help="names or files, separated by commas")
    parser.add_argument("--jobs", type=_positive(int), default=1, help="simultaneous runs of one thread each")
    parser.add_argument("--log", type=Path, help="file of the trials (default: benchmarks/results/study_NAME.jsonl)")
    parser.add_argument("--work", type=Path, help="folder of the runs (default: runs/study/NAME)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of all arms")


N = TypeVar("N", int, float)


def _positive(kind: Callable[[str], N]) -> Callable[[str], N]:
    def parse(text: str) -> N:
        try:
            number = kind(text)
        except ValueError:
            number = kind("0")
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"a positive number is needed, not '{text}'")
        return number

    return parse


def _data(text: str) -> tuple[str, tuple[str, ...]]:
    """Name of the data, and the settings that find it."""
    name, _, folder = text.partition("=")
    if text == "scenes":
        return name, ("data.source=scenes",)
    if not Path(folder).is_dir() or not folder:
        raise argparse.ArgumentTypeError(f"NAME=FOLDER with a folder of images is needed, or scenes, not '{text}'")
    return name, ("data.source=folder", f"data.root={Path(folder).resolve()}")


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no file {text}")
    return Path(text)


def _arms(text: str) -> list[Arm]:
    try:
        arms = [read_arm(name) for name in text.split(",")]
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    names = [arm.name for arm in arms]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise argparse.ArgumentTypeError(f"two arms are called '{repeated[0]}'")
    return arms


if __name__ == "__main__":
    sys.exit(main())
