"""Captions of COCO, and of Flickr8k, Flickr30k and COCO in Karpathy's files, which retrieval uses."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jepa.modality import Split
from modalities.image_text.captions.files import TableInFolder, any_exists, open_table, spread
from modalities.image_text.captions.rules import MalformedError, captions_of, is_path, split_of
from modalities.image_text.captions.table import CaptionEntry, CaptionTableBuilder
from modalities.storage.images import Decode
from modalities.storage.index import Request
from modalities.storage.labels import label_value
from modalities.storage.opened import Opened
from modalities.storage.splits import SPLIT_SEED, StoredSplit, named_files, split_named, split_word, split_words

_OFFICIAL = re.compile(r"captions_(train|val|test)(\d*)\.json")


def open_coco(root: Path, split: Split, decode: Decode, opened: Opened | None = None) -> StoredSplit:
    """The captioned images of one split, without classes.

    `root` is a folder with annotations/captions_train2017.json and captions_val2017.json (of any year) and the images
    in train2017 and val2017; or a folder with one dataset*.json by Karpathy, with the images in it or in a folder
    beside it; or one such file, and then those that differ from it in the word for the split alone are the other
    splits. A validation split without a test split is used as the test split, and validation is
    carved. Entries without a split, and a single file of COCO, are one training set to carve from (see captions.files).
    A malformed entry is a bad sample; raises ValueError with the line if the file is not JSON.
    """
    stored = _stored_files(root)
    files = [(path, part if len(stored) > 1 else None) for path, part in stored]
    settings = {"seed": SPLIT_SEED, "splits": [part for _, part in files]}
    request = Request("coco", root, split, settings, [path for path, _ in files], edges=True)
    return open_table(request, lambda: _read(files), decode, True, opened)


def _stored_files(root: Path) -> list[tuple[Path, Split]]:
    """The JSON files at `root` and their splits."""
    if not root.exists():
        raise FileNotFoundError(f"data root {root} does not exist")
    if root.is_file():
        return [(path, part) for part, paths in named_files(root).items() for path in paths]
    found = [path for folder in (root / "annotations", root) for path in sorted(folder.glob("captions_*.json"))]
    official = [path for path in found if _OFFICIAL.fullmatch(path.name)]
    files = official or sorted(root.glob("dataset*.json"))
    if not files:
        raise FileNotFoundError(f"no annotations/captions_train*.json and no dataset*.json in {root}")
    years = {_year(path) for path in official}
    if len(years) > 1 or (not official and len(files) > 1):
        names = ", ".join(path.name for path in files[:6])
        raise ValueError(f"{root} holds {names}; one data set is allowed: give one of the files instead of the folder")
    return [(path, split_named(split_word(path.name)) or "train") for path in files]


def _year(path: Path) -> str:
    named = _OFFICIAL.fullmatch(path.name)
    return named[2] if named else ""


def _read(files: Sequence[tuple[Path, Split | None]]) -> TableInFolder:
    """The table of all files, and the folder below which the images are."""
    first = files[0][0].parent
    folder = first.parent if first.name == "annotations" else first
    builder = CaptionTableBuilder(folder)
    for path, stated in files:
        content = _load(path)
        builder.begin(path, "images[{}]", stated)
        if isinstance(content.get("annotations"), list):
            parts = [part for word in split_words(path.name)[:1] for part in (word, f"images/{word}")]
            _official(content, folder, parts, builder)
            continue
        try:
            _karpathy(content, folder, builder)
        except ValueError as error:
            raise ValueError(f"{path}, {error}") from error
    return builder.table(), folder


def _load(path: Path) -> dict[str, Any]:
    """The object in a JSON file, which needs a list of `images`."""
    data = path.read_bytes()
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: JSON that is too deeply nested") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ValueError(f"{path} has no list of `images`, which files of COCO and of Karpathy have")
    return content


def _official(content: dict[str, Any], folder: Path, parts: Sequence[str], builder: CaptionTableBuilder) -> None:
    """Add images (with id and file_name) and annotations (with image_id and caption)."""
    ids = [entry.get("id") for entry in content["images"] if isinstance(entry, dict)]
    exact = len({_id_key(value, exact=False) for value in ids}) < len({_id_key(value, exact=True) for value in ids})
    known: dict[str, tuple[int, str]] = {}
    for number, entry in enumerate(content["images"]):
        if not isinstance(entry, dict) or not is_path(entry.get("file_name")):
            builder.fault(f"images[{number}]", "no `file_name`")
        elif not (key := _id_key(entry.get("id"), exact)) or key in known:
            builder.fault(f"images[{number}]", "no unique `id`")
        else:
            known[key] = number, entry["file_name"]
    prefix = _image_folder(folder, [*parts, "images", ""], [name for _, name in known.values()])
    for number, name in known.values():
        builder.add(number, CaptionEntry(_below(prefix, name), ()))
    for annotation, entry in enumerate(content["annotations"]):
        try:
            image = entry.get("image_id") if isinstance(entry, dict) else None
            if (key := _id_key(image, exact)) not in known:
                raise MalformedError(f"image_id {image!r:.40} is not among the images")
            number, name = known[key]
            builder.add(number, CaptionEntry(_below(prefix, name), captions_of(entry)))
        except MalformedError as error:
            builder.fault(f"annotations[{annotation}]", str(error))


def _id_key(value: object, exact: bool) -> str:
    """The same text for an id that is a number or text: 12, 12.0, "12" and, unless `exact`, "0012"; "" for no id."""
    if type(value) is int:
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str):
        return ""
    return value if exact else label_value(value)


def _karpathy(content: dict[str, Any], folder: Path, builder: CaptionTableBuilder) -> None:
    """Add images, with filename, optionally filepath (its folder), split and sentences."""
    valid: list[tuple[int, CaptionEntry]] = []
    for number, entry in enumerate(content["images"]):
        try:
            valid.append((number, _karpathy_entry(entry)))
        except MalformedError as error:
            builder.fault(f"images[{number}]", str(error))
        except ValueError as error:
            raise ValueError(f"images[{number}]: {error}") from error
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    prefix = _image_folder(folder, ["", *inner], [entry.image for _, entry in valid])
    for number, entry in valid:
        builder.add(number, replace(entry, image=_below(prefix, entry.image)))


def _karpathy_entry(entry: object) -> CaptionEntry:
    """An entry of the file; raises MalformedError if it is malformed, ValueError for an unknown split."""
    if not isinstance(entry, dict) or not is_path(entry.get("filename")):
        raise MalformedError("no `filename`")
    part = f"{entry['filepath']}/" if is_path(entry.get("filepath")) else ""
    captions = list(_sentences(entry.get("sentences")))
    return CaptionEntry(part + entry["filename"], captions, split_of(entry.get("split")))


def _sentences(sentences: object) -> Iterable[str]:
    for sentence in sentences if isinstance(sentences, list) else []:
        if not isinstance(sentence, dict) or "raw" not in sentence:
            raise MalformedError("a sentence without `raw`")
        yield from captions_of({"caption": sentence["raw"]})


def _image_folder(folder: Path, parts: Sequence[str], names: Sequence[str]) -> str:
    """The first of the parts of `folder` with any of the images, followed by a slash; the first part if none has."""
    some = [names[index] for index in spread(np.arange(len(names)))]
    found = next((part for part in parts if any_exists(folder / part, some)), parts[0])
    return f"{found}/" if found else ""


def _below(prefix: str, name: str) -> str:
    return name if name.startswith("/") else prefix + name
