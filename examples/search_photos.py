"""Search a folder of photos with a sentence: python examples/search_photos.py RUN_DIR FOLDER "two red balls".

RUN_DIR is a run of `--modality image-text`. The vectors of the photos are stored in the run directory, so that only the
first search of a folder reads all photos; later searches read new and changed ones.
"""

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

import jepa
from jepa.console import shown
from jepa.modality import BadSampleError
from modalities.image_text.served import ImageTextModel
from modalities.storage.images import image_extensions

_BATCH = 32
Vectors = dict[tuple[str, int], torch.Tensor]  # unit vectors, by path and time of change


def main() -> int:
    """Print the best matches with their scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sentence")
    parser.add_argument("--best", type=int, default=5)
    arguments = parser.parse_args()
    try:
        model, index = _open(arguments.run, arguments.folder, arguments.best)
    except ValueError as error:  # such as a run without a checkpoint
        print(f"error: {shown(error)}", file=sys.stderr)
        return 1
    names, vectors = list(index), torch.stack(list(index.values()))
    scores = vectors @ model.encode_text([arguments.sentence])[0]
    for row in scores.topk(min(arguments.best, len(names))).indices.tolist():
        print(f"{scores[row]:+.3f}  {shown(names[row][0])}")
    return 0


def _open(run: Path, folder: Path, best: int) -> tuple[ImageTextModel, Vectors]:
    """The model of a run and the vectors of the photos below a folder; raises ValueError if nothing can be searched."""
    if best < 1:
        raise ValueError(f"--best {best}: at least 1 is needed")
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    model = jepa.load(run)
    if not isinstance(model, ImageTextModel):
        raise ValueError(f"{run} is not a run of --modality image-text")
    if not (index := _index(model, run, folder)):
        raise ValueError(f"no photos below {folder}")
    return model, index


def _index(model: ImageTextModel, run: Path, folder: Path) -> Vectors:
    """Vectors of all readable photos below a folder."""
    cache = run / "search_index.pt"
    known = torch.load(cache) if cache.exists() and cache.stat().st_mtime > _last_trained(run) else {}
    paths = sorted(path for path in folder.resolve().rglob("*") if path.suffix.lower() in image_extensions())
    found = {(str(path), path.stat().st_mtime_ns): path for path in paths}
    new = [key for key in found if key not in known]
    batches = [new[start : start + _BATCH] for start in range(0, len(new), _BATCH)]
    for keys in track(batches, "reading photos", console=Console(stderr=True), disable=not batches):
        known |= _encode(model, {key: found[key] for key in keys})
    if new:
        with cache.open("wb") as file:
            torch.save(known, file)
    return {key: known[key] for key in found if key in known}


def _encode(model: ImageTextModel, paths: dict[tuple[str, int], Path]) -> Vectors:
    """Vectors of some photos; unreadable ones are reported and left out."""
    try:
        return dict(zip(paths, model.encode_image(list(paths.values())), strict=True))
    except BadSampleError as error:
        print(shown(f"skipped {error.source}: {error.reason}"), file=sys.stderr)
        rest = {key: path for key, path in paths.items() if str(path) != error.source}
        return _encode(model, rest) if rest else {}


def _last_trained(run: Path) -> float:
    """Time of the last checkpoint of the run."""
    return max((path.stat().st_mtime for path in (run / "checkpoints").glob("*")), default=0.0)


if __name__ == "__main__":
    sys.exit(main())
