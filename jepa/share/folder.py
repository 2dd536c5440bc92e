"""Write trained networks, their card, results and figures as a folder to be shared."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jepa.checkpoint.file import Step
from jepa.config import ConfigError
from jepa.disk import write_text, writing
from jepa.report.charts import CURVES
from jepa.share.card import write_card
from jepa.share.exports import write_exports
from jepa.share.facts import Facts, facts_of
from jepa.share.licences import UNKNOWN
from jepa.share.privacy import check_private
from jepa.weights.families.names import family_name
from jepa.weights.formats.folder import is_folder, record_files, recorded_files, write_folder
from jepa.weights.load import read_checkpoint
from jepa.weights.places import located

_CHARTS = ("tasks", "forecast", *CURVES)  # of a report; its other figures show samples of the data


@dataclass(frozen=True)
class Request:
    """What to share.

    source: run directory, checkpoint file or any other source of networks. name: `user/name` on the hub, or any other
    name for the card. loaded_from: what the card gives to `jepa.load`. pictures: include figures that show samples of
    data that is not generated. formats: of `exports.FILES`, to write beside the networks. trust: import code that the
    config names, to count the data.
    """

    source: str
    name: str
    loaded_from: str
    licence: str = UNKNOWN
    step: Step | None = None
    pictures: bool = False
    formats: Sequence[str] = ()
    trust: bool = False


def run_dir_of(source: str) -> Path | None:
    """The run directory that a source is or lies in; None for other sources."""
    path = Path(source)
    candidates = [path, path.parent.parent if path.parent.name == "checkpoints" else path]
    return next((one for one in candidates if (one / "config.yaml").is_file()), None)


def _record_of(source: str) -> Path | None:
    """The folder with what is known of networks: their run directory, or a folder that was shared before."""
    return run_dir_of(source) or next((path for path in [located(source)] if is_folder(path)), None)


def gather(request: Request) -> Facts:
    """What is known of the networks that are to be shared; raises CheckpointError and ConfigError."""
    if family_name(request.source):
        raise ConfigError(f"{request.source} is an encoder of another library; only networks of a JEPA can be shared")
    run_dir = _record_of(request.source)
    checkpoint = read_checkpoint(request.source, mmap=True, step=request.step)
    facts = facts_of(request.name, checkpoint, run_dir, request.trust)
    figures = _figures(run_dir, everything=facts.generated or request.pictures) if run_dir else []
    return replace(facts, figures=tuple(path.name for path in figures))


def write_shared(request: Request, folder: Path) -> list[str]:
    """Write the folder, replacing an earlier one -> warnings about what it holds.

    Raises CheckpointError, ConfigError if another folder is in the way, and PrivacyError.
    """
    _check_place(folder, request.source)
    facts, aside = gather(request), folder.with_name(f"{folder.name}.partial")
    with writing(folder):
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "figures").mkdir(parents=True)
    write_folder(facts.checkpoint, aside)
    exports = write_exports(aside, request.formats, aside, request.trust)
    card = write_card(facts, request.licence, request.loaded_from, exports)
    write_text(aside / "README.md", card, aside / "README.md.partial")
    if facts.results:
        text = json.dumps(facts.results, indent=1) + "\n"
        write_text(aside / "results.json", text, aside / "results.json.partial")
    run_dir = _record_of(request.source)
    with writing(folder):
        for name in facts.figures:
            shutil.copyfile(run_dir / "figures" / name, aside / "figures" / name)  # type: ignore[operator]
        if not facts.figures:
            (aside / "figures").rmdir()
        record_files(aside, [name for name, _ in shared_files(aside)])
        warnings = check_private(aside)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    return warnings


def _check_place(folder: Path, source: str) -> None:
    """Raise ConfigError if writing the folder would delete the source, or files that jepa push did not write."""
    place, from_ = folder.resolve(), located(source).resolve()
    inside = place in from_.parents or (from_ in place.parents and run_dir_of(source) is None)
    if place == from_ or inside:
        raise ConfigError(f"{folder} would replace {source}, which is to be shared; choose another with --folder")
    if not folder.exists():
        return
    if not is_folder(folder):
        raise ConfigError(f"{folder} exists and is not a folder that jepa push wrote; choose another with --folder")
    known = recorded_files(folder)
    if strange := [name for name, _ in shared_files(folder) if name not in known]:
        raise ConfigError(f"{folder} holds {strange[0]}, which jepa push did not write; choose another with --folder")


def shared_files(folder: Path) -> list[tuple[str, int]]:
    """Files of a folder with their sizes, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


def _figures(run_dir: Path, everything: bool) -> Sequence[Path]:
    """Pictures of a report. A link might lead to any file of this machine, so links are left out."""
    found = sorted(path for path in (run_dir / "figures").glob("*.png") if path.is_file() and not path.is_symlink())
    return [path for path in found if everything or path.stem in _CHARTS]
