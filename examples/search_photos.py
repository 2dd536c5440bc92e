"""Search a folder of pictures with a sentence: python examples/search_photos.py RUN_DIR FOLDER "two red balls".

RUN_DIR is a run of `--modality image-text`. The vectors of the pictures are kept beside the run, so that only the first
search of a folder reads it; a picture that is new or has changed is read again.
"""

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

import jepa
from jepa.modality import BadSampleError
from modalities.image_text.served import ImageTextModel
from modalities.storage.images import image_extensions

_AT_ONCE = 32


def main() -> int:
    """Print the pictures that match best, with their scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sentence")
    parser.add_argument("--best", type=int, default=5)
    asked = parser.parse_args()
    try:
        model, index = _searched(asked.run, asked.folder, asked.best)
    except ValueError as error:  # such as a run without a checkpoint
        print(f"error: {error}", file=sys.stderr)
        return 1
    names, vectors = list(index), torch.stack(list(index.values()))
    scores = vectors @ model.encode_text([asked.sentence])[0]
    for place in scores.topk(min(asked.best, len(names))).indices.tolist():
        print(f"{scores[place]:+.3f}  {names[place][0]}")
    return 0


def _searched(run: Path, folder: Path, best: int) -> tuple[ImageTextModel, dict[tuple[str, int], torch.Tensor]]:
    """The model of a run, and vectors of the pictures below a folder; raises ValueError for what cannot be searched."""
    if best < 1:
        raise ValueError(f"--best {best}: at least one picture has to be asked for")
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    model = jepa.load(run)
    if not isinstance(model, ImageTextModel):
        raise ValueError(f"{run} is no run of --modality image-text")
    if not (index := _index(model, run, folder)):
        raise ValueError(f"no pictures below {folder}")
    return model, index


def _index(model: ImageTextModel, run: Path, folder: Path) -> dict[tuple[str, int], torch.Tensor]:
    """Unit vectors of all pictures below a folder, by path and time of change."""
    kept = run / "search_index.pt"
    known = torch.load(kept) if kept.exists() and kept.stat().st_mtime > _trained(run) else {}
    paths = sorted(path for path in folder.resolve().rglob("*") if path.suffix.lower() in image_extensions())
    found = {(str(path), path.stat().st_mtime_ns): path for path in paths}
    new = [key for key in found if key not in known]
    parts = [new[start : start + _AT_ONCE] for start in range(0, len(new), _AT_ONCE)]
    for keys in track(parts, "reading pictures", console=Console(stderr=True), disable=not parts):
        for key, vector in _encoded(model, {key: found[key] for key in keys}).items():
            known[key] = vector
    if new:
        torch.save(known, kept)
    return {key: known[key] for key in found if key in known}


def _encoded(model: ImageTextModel, paths: dict[tuple[str, int], Path]) -> dict[tuple[str, int], torch.Tensor]:
    """Vectors of some pictures; those that cannot be read are named and left out."""
    try:
        return dict(zip(paths, model.encode_image(list(paths.values())), strict=True))
    except BadSampleError as error:
        print(f"skipped {error.source}: {error.reason}", file=sys.stderr)
        rest = {key: path for key, path in paths.items() if str(path) != error.source}
        return _encoded(model, rest) if rest else {}


def _trained(run: Path) -> float:
    """When the last checkpoint of the run was written."""
    return max((path.stat().st_mtime for path in (run / "checkpoints").glob("*")), default=0.0)


if __name__ == "__main__":
    sys.exit(main())
