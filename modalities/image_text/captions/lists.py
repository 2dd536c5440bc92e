"""Captioned images listed in a file: JSON Lines, or a table with a header."""

import csv
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from jepa.modality import Split
from modalities.image_text.captions.files import open_table
from modalities.image_text.captions.rules import CAPTION_KEYS, MalformedError, captions_of, is_path, split_of
from modalities.image_text.captions.table import CaptionEntry, CaptionTable, CaptionTableBuilder
from modalities.storage.folders import check_folder
from modalities.storage.images import Decode
from modalities.storage.splits import StoredSplit, files_by_split, set_name, split_word, split_words

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_ENDINGS = (".jsonl", *_DELIMITERS)
_IMAGE_KEYS = ("image", "filepath", "file", "path", "file_name", "filename")
_CHECKED = 100  # lines; if all of them are malformed, the file is an error

Line = tuple[int, Mapping[str, object] | MalformedError]


def open_lists(root: Path, split: Split, decode: Decode, seed: int) -> StoredSplit:
    """The captioned images of one split listed at `root`, and the class names, () if unlabelled.

    `root` is a file, or a folder with captions.jsonl, .csv or .tsv, or with several files of one ending that are named
    after splits (captions-train.jsonl, captions-val.jsonl). A file with such a name is read with those beside it.
    A line of .jsonl is an object with the path of an image under `image` (filepath, file, path, file_name, filename),
    its captions (captions.rules.captions_of) and optionally `split` and `label`; a table has columns of these names.
    Paths are absolute or relative to the file's folder. Lines of one image need not be adjacent.
    A split on a line takes precedence over the file name; missing splits are carved (captions.files.open_table).
    A malformed line is a bad sample. Raises ValueError if the first hundred lines are all malformed, or for an unknown
    split.
    """
    stored = _stored_lists(root)
    paths = [(path, part if len(stored) > 1 else None) for part, of_part in stored.items() for path in of_part]
    table = _read(tuple((path, part, path.stat().st_size, path.stat().st_mtime_ns) for path, part in paths))
    return open_table(table, paths[0][0].parent, split, decode, seed)


def _stored_lists(root: Path) -> dict[Split, list[Path]]:
    """The files at `root`, by the split in their names."""
    if root.is_file():
        if root.suffix.lower() not in _ENDINGS:
            raise ValueError(f"{root} is not a list of captions; allowed endings are {', '.join(_ENDINGS)}")
        if not split_word(root.name):
            return {"train": [root]}
        own = set_name(root.name)
        beside = [path for path in root.parent.iterdir() if split_words(path.name) and set_name(path.name) == own]
        return files_by_split(sorted(beside), str(root.parent)) if len(beside) > 1 else {"train": [root]}
    check_folder(root)
    found = sorted(path for path in root.glob("captions*") if path.suffix.lower() in _ENDINGS)
    if not found:
        raise FileNotFoundError(
            f"no captions.jsonl, captions.csv or captions.tsv in {root}; for another file, give its path"
        )
    stored = files_by_split(found, str(root))
    if len({path.suffix for path in found}) > 1 or max(map(len, stored.values())) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise ValueError(f"{root} holds {names}; one is allowed, or one per split, such as captions-train.jsonl")
    return stored


@lru_cache(maxsize=2)  # every split needs the same table, which depends on the files only
def _read(files: tuple[tuple[Path, Split | None, int, int], ...]) -> CaptionTable:
    builder = CaptionTableBuilder()
    for path, split, _size, _modified in files:
        builder.begin(path, "line {}", split)
        lines = _json_lines(path) if path.suffix.lower() == ".jsonl" else _table_lines(path)
        _gather(path, lines, builder)
    return builder.table()


def _gather(path: Path, lines: Iterator[Line], builder: CaptionTableBuilder) -> None:
    """Add the lines of a file."""
    valid, first_fault = 0, ""
    for count, (number, fields) in enumerate(lines, start=1):
        try:
            if isinstance(fields, MalformedError):
                raise fields
            builder.add(number, _entry(fields))
            valid += 1
        except MalformedError as error:
            first_fault = first_fault or f"{path}, line {number}: {error}"
            builder.fault(f"line {number}", str(error))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if count == _CHECKED and not valid:
            break
    if first_fault and not valid:
        raise ValueError(f"{first_fault}; none of the first {_CHECKED} lines has an image and a caption")


def _entry(fields: Mapping[str, object]) -> CaptionEntry:
    """The entry of a line; raises MalformedError if it is malformed, ValueError for an unknown split."""
    image = next((fields[key] for key in _IMAGE_KEYS if key in fields), None)
    if not is_path(image):
        raise MalformedError(f"no image path under {', '.join(_IMAGE_KEYS[:4])}")
    return CaptionEntry(str(image), captions_of(fields), split_of(fields.get("split")), _label(fields.get("label")))


def _label(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) or type(value) is int:
        return str(value).encode("utf-8", "replace").decode()
    raise MalformedError("the label is neither text nor a whole number")


def _json_lines(path: Path) -> Iterator[Line]:
    """Line numbers and objects of a JSON Lines file, without blank lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _json_object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _json_object(line: bytes) -> Mapping[str, object] | MalformedError:
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError:
        return MalformedError("not UTF-8")
    except (ValueError, RecursionError) as error:
        return MalformedError(f"not JSON: {error}")
    return fields if isinstance(fields, dict) else MalformedError("not a JSON object")


def _table_lines(path: Path) -> Iterator[Line]:
    """Rows of a table as mappings, with the numbers of their first lines."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = _table_rows(file, _DELIMITERS[path.suffix.lower()])
        _, header = next(rows, (1, []))
        columns = _columns(path, header)
        for number, row in rows:
            if isinstance(row, MalformedError):
                yield number, row
            elif len(row) != len(columns):
                yield number, MalformedError(f"{len(row)} fields, but the header has {len(columns)}")
            elif not _is_unicode("".join(row)):
                yield number, MalformedError("not UTF-8")
            else:
                yield number, dict(zip(columns, row, strict=True))


def _columns(path: Path, header: list[str] | MalformedError) -> list[str]:
    if isinstance(header, MalformedError) or not _is_unicode("".join(header)):
        raise ValueError(f"{path}, line 1: not UTF-8, or an unclosed quote")
    columns = [name.strip().lower() for name in header]
    for noun, names in (("image", _IMAGE_KEYS), ("caption", CAPTION_KEYS)):
        if not set(names) & set(columns):
            given = ", ".join(columns)[:200]
            raise ValueError(f"{path}, line 1: no {noun} column ({', '.join(names)}) among: {given or 'no columns'}")
    return columns


def _table_rows(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str] | MalformedError]]:
    """Rows with the numbers of their first lines; an unclosed quote is a fault of every line inside it."""
    ended = False

    def lines() -> Iterator[str]:
        nonlocal ended
        yield from file
        ended = True

    reader = csv.reader(lines(), delimiter=delimiter)
    while True:
        start, fault = reader.line_num + 1, ""
        try:
            row = next(reader, None)
        except csv.Error as error:
            row, fault = [], str(error)
        if row is None:
            return
        if fault or ended:  # a complete row does not read past its end
            for number in range(start, reader.line_num + 1):
                yield number, MalformedError(f"not a table row: {fault or 'unclosed quote'}")
        elif len(row) > 1 or "".join(row).strip():
            yield start, row


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
