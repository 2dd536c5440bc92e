"""Captioned images that are listed in a file: JSON Lines, or a table with a header."""

import csv
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from jepa.modality import Split
from modalities.image_text.captions.files import open_table
from modalities.image_text.captions.rules import CAPTION_KEYS, MalformedError, captions_of, is_path, split_of
from modalities.image_text.captions.table import CaptionRows, CaptionTable, Row
from modalities.storage.folders import check_folder
from modalities.storage.splits import StoredSplit, files_by_split, split_word

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_ENDINGS = (".jsonl", *_DELIMITERS)
_IMAGE_KEYS = ("image", "filepath", "file", "path", "file_name", "filename")
_JUDGED = 100  # lines: when none of them is understood, it is the file that is wrong

Line = tuple[int, Mapping[str, object] | MalformedError]


def open_lists(root: Path, split: Split, min_side: int, seed: int) -> StoredSplit:
    """The captioned images of one split that the lists at `root` name, and their classes, () where unlabelled.

    `root` is a file, or a folder that holds captions.jsonl, .csv or .tsv, or several of one ending whose names say the
    split (captions-train.jsonl, captions-val.jsonl); a file so named is read with those beside it, if there are any.
    A line of .jsonl is an object with the path of an image under `image` (filepath, file, path, file_name, filename),
    what is said of it (caption_rules.captions_of) and, where known, `split` and `label`; a table has columns of these
    names. Paths are absolute, or relative to the file's folder. Lines of one image need not be adjacent.
    A split stated on a line outranks the file's name; without either it is carved (caption_files.open_table).
    A line that is not understood is a bad sample; if the first hundred all are, or a split is none, it is a ValueError.
    """
    stored = _stored_lists(root)
    paths = [(path, part if len(stored) > 1 else None) for part, of_part in stored.items() for path in of_part]
    table = _read(tuple((path, part, path.stat().st_size, path.stat().st_mtime_ns) for path, part in paths))
    return open_table(table, paths[0][0].parent, split, min_side, seed)


def _stored_lists(root: Path) -> dict[Split, list[Path]]:
    """The files at `root` by the split that their names say."""
    if root.is_file():
        if root.suffix.lower() not in _ENDINGS:
            raise ValueError(f"{root} is no list of captions; one ends in {', '.join(_ENDINGS)}")
        word = split_word(root.name)
        beside = [path for path in root.parent.iterdir() if word and _is_part_of(path.name, root.name, word)]
        return files_by_split(sorted(beside), str(root.parent)) if len(beside) > 1 else {"train": [root]}
    check_folder(root)
    found = sorted(path for path in root.glob("captions*") if path.suffix.lower() in _ENDINGS)
    if not found:
        raise FileNotFoundError(
            f"no captions.jsonl, captions.csv or captions.tsv in {root}; another may be named itself"
        )
    stored = files_by_split(found, str(root))
    if len({path.suffix for path in found}) > 1 or max(map(len, stored.values())) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise ValueError(f"{root} holds {names}; one is allowed, or one for each split, such as captions-train.jsonl")
    return stored


def _is_part_of(name: str, other: str, word: str) -> bool:
    """Whether two names of files differ in the split alone."""
    return bool(mine := split_word(name)) and name.replace(mine, "", 1) == other.replace(word, "", 1)


@lru_cache(maxsize=2)  # every split asks for the same table, which is a function of the files
def _read(files: tuple[tuple[Path, Split | None, int, int], ...]) -> CaptionTable:
    rows = CaptionRows()
    for path, split, _size, _modified in files:
        rows.begin(path, "line {}", split)
        lines = _json_lines(path) if path.suffix.lower() == ".jsonl" else _table_lines(path)
        _gather(path, lines, rows)
    return rows.table()


def _gather(path: Path, lines: Iterator[Line], rows: CaptionRows) -> None:
    """Add what the lines of a file say."""
    understood, first_fault = 0, ""
    for count, (number, fields) in enumerate(lines, start=1):
        try:
            if isinstance(fields, MalformedError):
                raise fields
            rows.add(number, _row(fields))
            understood += 1
        except MalformedError as error:
            first_fault = first_fault or f"{path}, line {number}: {error}"
            rows.fault(f"line {number}", str(error))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if count == _JUDGED and not understood:
            break
    if first_fault and not understood:
        raise ValueError(f"{first_fault}; none of the first {_JUDGED} lines says an image and its caption")


def _row(fields: Mapping[str, object]) -> Row:
    """What a line says; MalformedError if it cannot be used, ValueError for a split that is none."""
    image = next((fields[key] for key in _IMAGE_KEYS if key in fields), None)
    if not is_path(image):
        raise MalformedError(f"no path of an image under {', '.join(_IMAGE_KEYS[:4])}")
    return Row(str(image), captions_of(fields), split_of(fields.get("split")), _label(fields.get("label")))


def _label(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) or type(value) is int:
        return str(value).encode("utf-8", "replace").decode()
    raise MalformedError("the label is neither text nor a whole number")


def _json_lines(path: Path) -> Iterator[Line]:
    """The objects of a file of JSON Lines, with their line numbers; blank lines are passed over."""
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
    """The rows of a table by the names of its columns, with the numbers of their first lines."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = _table_rows(file, _DELIMITERS[path.suffix.lower()])
        _, header = next(rows, (1, []))
        columns = _columns(path, header)
        for number, row in rows:
            if isinstance(row, MalformedError):
                yield number, row
            elif len(row) != len(columns):
                yield number, MalformedError(f"{len(row)} fields, the header has {len(columns)}")
            elif not _is_unicode("".join(row)):
                yield number, MalformedError("not UTF-8")
            else:
                yield number, dict(zip(columns, row, strict=True))


def _columns(path: Path, header: list[str] | MalformedError) -> list[str]:
    if isinstance(header, MalformedError) or not _is_unicode("".join(header)):
        raise ValueError(f"{path}, line 1: not UTF-8, or a quote that is not closed")
    columns = [name.strip().lower() for name in header]
    for noun, names in (("image", _IMAGE_KEYS), ("caption", CAPTION_KEYS)):
        if not set(names) & set(columns):
            given = ", ".join(columns)[:200]
            raise ValueError(f"{path}, line 1: no column of {noun}s ({', '.join(names)}) among: {given or 'nothing'}")
    return columns


def _table_rows(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str] | MalformedError]]:
    """Rows with the numbers of their first lines; a quote left open is a fault of every line that it swallows."""
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
        if fault or ended:  # a whole row has no need to ask for another line
            for number in range(start, reader.line_num + 1):
                yield number, MalformedError(f"not a row of a table: {fault or 'a quote is not closed'}")
        elif len(row) > 1 or "".join(row).strip():
            yield start, row


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
