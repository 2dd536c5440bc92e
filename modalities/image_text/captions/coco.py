"""Captions of COCO and, as retrieval uses them, of Flickr8k, Flickr30k and COCO in Karpathy's files."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jepa.modality import Split
from modalities.image_text.captions.files import any_exists, open_table, spread
from modalities.image_text.captions.rules import MalformedError, captions_of, is_path, split_of
from modalities.image_text.captions.table import CaptionRows, CaptionTable, Row
from modalities.storage.splits import SPLIT_NAMES, StoredSplit

_OFFICIAL = re.compile(r"captions_(train|val|test)(\d*)\.json")


def open_coco(root: Path, split: Split, min_side: int, seed: int) -> StoredSplit:
    """The captioned images of one split; there are no classes.

    `root` is a folder with annotations/captions_train2017.json and captions_val2017.json, of any one year, its images
    in train2017 and val2017; or with one dataset*.json of Karpathy's, its images there or in a folder beside it; or one
    such file. As everywhere, a validation split without a test split is our test split, and validation is carved; what
    states no split, and one file of COCO alone, is one training set to carve from (caption_files.open_table).
    An entry that is not understood is a bad sample; a file that is not JSON is a ValueError with the line.
    """
    table, folder = _read(root, tuple((path, path.stat().st_mtime_ns) for path in _stored_files(root)))
    return open_table(table, folder, split, min_side, seed)


def _stored_files(root: Path) -> list[Path]:
    """The JSON files at `root`."""
    if not root.exists():
        raise FileNotFoundError(f"data root {root} does not exist")
    named = _OFFICIAL.fullmatch(root.name)
    if root.is_file():
        beside = (
            [root.with_name(f"captions_{part}{named[2]}.json") for part in ("train", "val", "test")] if named else []
        )
        return [path for path in beside if path.exists()] or [root]
    found = [path for folder in (root / "annotations", root) for path in sorted(folder.glob("captions_*.json"))]
    official = [path for path in found if _OFFICIAL.fullmatch(path.name)]
    files = official or sorted(root.glob("dataset*.json"))
    if not files:
        raise FileNotFoundError(f"no annotations/captions_train*.json and no dataset*.json in {root}")
    years = {_year(path) for path in official}
    if len(years) > 1 or (not official and len(files) > 1):
        names = ", ".join(path.name for path in files[:6])
        raise ValueError(f"{root} holds {names}; one set is allowed, name one of its files instead of the folder")
    return files


def _year(path: Path) -> str:
    named = _OFFICIAL.fullmatch(path.name)
    return named[2] if named else ""


@lru_cache(maxsize=2)  # every split asks for the same table, which is a function of the files
def _read(root: Path, files: tuple[tuple[Path, int], ...]) -> tuple[CaptionTable, Path]:
    """The table of all files, and the folder below which the images lie."""
    rows = CaptionRows()
    first = files[0][0].parent
    folder = first.parent if first.name == "annotations" else first
    for path, _ in files:
        named = _OFFICIAL.fullmatch(path.name)
        content = _load(path)
        stated = SPLIT_NAMES[named[1]] if named and len(files) > 1 else None
        rows.begin(path, "images[{}]", stated)
        if isinstance(content.get("annotations"), list):
            parts = [f"{named[1]}{named[2]}", f"images/{named[1]}{named[2]}"] if named else []
            _official(content, folder, parts, rows)
            continue
        try:
            _karpathy(content, folder, rows)
        except ValueError as error:
            raise ValueError(f"{path}, {error}") from error
    return rows.table(), folder


def _load(path: Path) -> dict[str, Any]:
    """The object of a JSON file that has a list of `images`."""
    data = path.read_bytes()
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: not JSON that can be read: too deeply nested") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ValueError(f"{path} has no list of `images`, as the files of COCO and of Karpathy have")
    return content


def _official(content: dict[str, Any], folder: Path, parts: Sequence[str], rows: CaptionRows) -> None:
    """Add images, which have an id and a file_name, and annotations, which have an image_id and a caption."""
    known: dict[int | str, tuple[int, str]] = {}
    for place, entry in enumerate(content["images"]):
        if not isinstance(entry, dict) or not is_path(entry.get("file_name")):
            rows.fault(f"images[{place}]", "no `file_name`")
        elif not isinstance(entry.get("id"), int | str) or entry["id"] in known:
            rows.fault(f"images[{place}]", "no `id` of its own")
        else:
            known[entry["id"]] = place, entry["file_name"]
    prefix = _image_folder(folder, [*parts, "images", ""], [name for _, name in known.values()])
    for place, name in known.values():
        rows.add(place, Row(_below(prefix, name), ()))
    for number, entry in enumerate(content["annotations"]):
        try:
            place, name = _annotated(entry, known)
            rows.add(place, Row(_below(prefix, name), captions_of(entry)))
        except MalformedError as error:
            rows.fault(f"annotations[{number}]", str(error))


def _annotated(entry: object, known: Mapping[int | str, tuple[int, str]]) -> tuple[int, str]:
    image = entry.get("image_id") if isinstance(entry, dict) else None
    if not isinstance(image, int | str) or image not in known:
        raise MalformedError(f"image_id {image!r:.40} is not among the images")
    return known[image]


def _karpathy(content: dict[str, Any], folder: Path, rows: CaptionRows) -> None:
    """Add images, each of which has a filename, maybe its folder as filepath, a split and sentences."""
    understood: list[tuple[int, Row]] = []
    for place, entry in enumerate(content["images"]):
        try:
            understood.append((place, _karpathy_row(entry)))
        except MalformedError as error:
            rows.fault(f"images[{place}]", str(error))
        except ValueError as error:
            raise ValueError(f"images[{place}]: {error}") from error
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    prefix = _image_folder(folder, ["", *inner], [row.image for _, row in understood])
    for place, row in understood:
        rows.add(place, Row(_below(prefix, row.image), row.captions, row.split))


def _karpathy_row(entry: object) -> Row:
    """What an entry says; MalformedError if it cannot be used, ValueError for a split that is none."""
    if not isinstance(entry, dict) or not is_path(entry.get("filename")):
        raise MalformedError("no `filename`")
    part = f"{entry['filepath']}/" if is_path(entry.get("filepath")) else ""
    return Row(part + entry["filename"], list(_sentences(entry.get("sentences"))), split_of(entry.get("split")))


def _sentences(sentences: object) -> Iterable[str]:
    for sentence in sentences if isinstance(sentences, list) else []:
        if not isinstance(sentence, dict) or "raw" not in sentence:
            raise MalformedError("a sentence without `raw`")
        yield from captions_of({"caption": sentence["raw"]})


def _image_folder(folder: Path, parts: Sequence[str], names: Sequence[str]) -> str:
    """The first of the parts of `folder` that holds any image, with a slash behind; the first of all if none does."""
    some = [names[place] for place in spread(np.arange(len(names)))]
    found = next((part for part in parts if any_exists(folder / part, some)), parts[0])
    return f"{found}/" if found else ""


def _below(prefix: str, name: str) -> str:
    return name if name.startswith("/") else prefix + name
