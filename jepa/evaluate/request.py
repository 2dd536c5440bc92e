"""What the user asks to evaluate, and where its results go."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa.checkpoint import latest
from jepa.checkpoint.file import Step, find_checkpoint
from jepa.config import Tree, plain
from jepa.weights.families.encoder import Family
from jepa.weights.families.names import family_name

EVALUATIONS = Path("evaluations")
_CHECKPOINT = re.compile(r"(latest|best)\.pt|step_\d+(\.pt)?")  # in the folder `checkpoints` of a run
_ENDINGS = (".pt", ".pth", ".tar", ".bin", ".npz", ".safetensors", ".json")  # of files of weights or results


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks to evaluate.

    source: as in `open_source`, with step, trust and modality. tasks: names of tasks or rows; all if empty. layers:
    config overrides. base: settings below the overrides, which need not have an effect. output: folder of the results.
    """

    source: Path | str | Family
    tasks: Sequence[str] = ()
    layers: Sequence[Tree | str] = ()
    base: Tree = field(default_factory=dict)
    modality: str | None = None
    step: Step | None = None
    trust: bool = False
    output: Path | None = None

    def record(self) -> dict[str, Any]:
        """What decides the results, as plain data: the same record, the same results."""
        layers = [layer if isinstance(layer, str) else plain(layer) for layer in self.layers]
        about = {"source": str(self.source), "stamp": self._stamp(), "tasks": list(self.tasks), "layers": layers}
        return {**about, "base": plain(self.base), "modality": self.modality, "step": self.step}

    def _stamp(self) -> list[int]:
        """Size and time of the weights on this machine; empty if they lie elsewhere."""
        name = str(self.source)
        weights = Path(name.partition("@")[2] if family_name(name) else name).expanduser()
        if not weights.exists():
            return []
        stat = (find_checkpoint(weights, self.step) if run_of(weights) else weights).stat()
        return [stat.st_size, stat.st_mtime_ns]


def run_of(source: Path | str) -> Path | None:
    """The run directory that a source is, or whose checkpoint it is; None for any other source."""
    path = Path(source)
    if (path / "checkpoints").is_dir():
        return path
    is_checkpoint = path.parent.name == "checkpoints" and _CHECKPOINT.fullmatch(path.name) and path.exists()
    return path.parent.parent if is_checkpoint else None


def results_path(request: Request, run_dir: Path | None, variant: str) -> Path:
    """Where the results go: `output` if it is given; results.json of a run with its own settings.

    For other settings, some tasks only, or an older checkpoint of a run: a file in its folder `evaluations`. Of any
    other source: a folder in `evaluations` of the working directory, as files that others made are left alone.
    """
    path = Path(str(request.source))
    if request.output is not None:
        return request.output / "results.json"
    if run_dir is None:
        return (
            EVALUATIONS
            / f"{plain_name_of(str(request.source))}-{digest(f'{request.source} {variant}')}"
            / "results.json"
        )
    if request.step is not None:
        path = find_checkpoint(path, request.step)
    if path not in (run_dir, latest(run_dir)):
        variant += path.name
    return run_dir / (EVALUATIONS / f"{digest(variant)}.json" if variant else "results.json")


def plain_name_of(source: Path | str) -> str:
    """A name for files, from a source: `timm:vit@/weights/mae.pth` -> `timm-vit-mae`."""
    parts = [Path(part) for part in str(source).split("@")]
    names = [part.parent.name if part.name == "results.json" else part.name for part in parts]
    return re.sub(r"[^\w.]+", "-", "-".join(map(_without_endings, names))).strip("-.")


def _without_endings(name: str) -> str:
    while Path(name).suffix in _ENDINGS:
        name = name.removesuffix(Path(name).suffix)
    return name


def digest(text: str) -> str:
    """A short hash for names of files."""
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
