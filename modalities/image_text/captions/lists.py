"""Captioned images listed in a file: JSON Lines, or a table with a header."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jepa.modality import Split
from modalities.image_text.captions.files import open_table
from modalities.image_text.captions.rules import CAPTION_KEYS, MalformedError, captions_of, is_path, split_of
from modalities.image_text.captions.table import CaptionEntry, CaptionTable, CaptionTableBuilder
from modalities.storage.folders import check_folder
from modalities.storage.images import Decode, image_extensions
from modalities.storage.index import Request
from modalities.storage.opened import Opened
from modalities.storage.splits import SPLIT_SEED, StoredSplit, files_by_split, named_files
from modalities.storage.tables import DELIMITERS, BadRow, find_delimiter, is_unicode, split_row, table_rows

_ENDINGS = (".jsonl", ".csv", ".tsv", ".txt")
_IMAGE_KEYS = ("image", "filepath", "file", "path", "file_name", "filename")
_READ = {*_IMAGE_KEYS, *CAPTION_KEYS, "captions", "split", "label"}
_CHECKED = 100  # lines; if all of them are malformed, the file is an error

Line = tuple[int, Mapping[str, object] | MalformedError]


def open_lists(
    root: Path, split: Split, decode: Decode, labels: bool = True, opened: Opened | None = None
) -> StoredSplit:
    """The captioned images of one split listed at `root`, and the class names, () if unlabelled.

    `root` is a file, or a folder with captions.jsonl, .csv or .tsv, or with several files of one ending that are named
    after splits (captions-train.jsonl, captions-val.jsonl). With a file, those beside it that differ in the word for
    the split alone are read as the other splits.
    A line of .jsonl is an object with the path of an image under `image` (filepath, file, path, file_name, filename),
    its captions (captions.rules.captions_of) and optionally `split` and `label`; a table has columns of these names.
    Paths are absolute or relative to the file's folder. Lines of one image need not be adjacent.
    A split on a line takes precedence over the file name; missing splits are carved (captions.files.open_table).
    A malformed line is a bad sample. Raises ValueError if the first hundred lines are all malformed, or for an unknown
    split.
    """
    stored = _stored_lists(root)
    paths = [(path, part if len(stored) > 1 else None) for part, of_part in stored.items() for path in of_part]
    settings = {"seed": SPLIT_SEED, "labels": labels, "splits": list(stored)}
    request = Request("captions", root, split, settings, [path for path, _ in paths], edges=True)
    return open_table(request, lambda: (_read(paths), paths[0][0].parent), decode, labels, opened)


def _stored_lists(root: Path) -> dict[Split, list[Path]]:
    """The files at `root`, by the split in their names."""
    if root.is_file():
        if root.suffix.lower() not in _ENDINGS:
            raise ValueError(f"{root} is not a list of captions; allowed endings are {', '.join(_ENDINGS)}")
        return named_files(root)
    check_folder(root)
    found = sorted(path for path in root.glob("captions*") if path.suffix.lower() in _ENDINGS[:3])
    if not found:
        raise FileNotFoundError(
            f"no captions.jsonl, captions.csv or captions.tsv in {root}; for another file, give its path"
        )
    stored = files_by_split(found, str(root))
    if len({path.suffix for path in found}) > 1 or max(map(len, stored.values())) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise ValueError(f"{root} holds {names}; one is allowed, or one per split, such as captions-train.jsonl")
    return stored


def _read(files: Sequence[tuple[Path, Split | None]]) -> CaptionTable:
    builder = CaptionTableBuilder(files[0][0].parent)
    for path, split in files:
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
    if isinstance(value, float) and value.is_integer():  # pandas writes 3.0 if another label is missing
        value = int(value)
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
        first, header = next(((number, line) for number, line in enumerate(file, start=1) if line.strip()), (1, ""))
        delimiter, columns = _header(path, first, header.rstrip("\r\n"))
        for number, row in table_rows(file, first + 1, delimiter, len(columns), tuple(image_extensions())):
            if isinstance(row, BadRow):
                yield number, MalformedError(row.reason)
            elif len(row) != len(columns):
                yield number, MalformedError(f"{len(row)} fields, but the header has {len(columns)}")
            elif not is_unicode("".join(row)) and not is_unicode(_texts(row, columns)):
                yield number, MalformedError("not UTF-8")
            else:
                yield number, dict(zip(columns, row, strict=True))


def _texts(row: list[str], columns: list[str]) -> str:
    """All fields but the path of the image, which need not be UTF-8."""
    return "".join(field for field, name in zip(row, columns, strict=True) if name not in _IMAGE_KEYS)


def _header(path: Path, number: int, line: str) -> tuple[str, list[str]]:
    """The delimiter and the names of the columns. Only a .tsv file says which delimiter it has."""
    if not is_unicode(line) or "\0" in line:
        raise ValueError(f"{path}, line {number}: not UTF-8")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else find_delimiter(line, lambda row: not _missing(row))
    columns = _names(split_row(line, delimiter))
    if missing := _missing(columns):
        given = ", ".join(columns)[:200] or "no columns"
        raise ValueError(f"{path}, line {number}: no {missing} among: {given} (separated by {DELIMITERS[delimiter]})")
    if twice := [name for name in columns if name in _READ and columns.count(name) > 1]:
        raise ValueError(f"{path}, line {number}: two columns are named '{twice[0]}'")
    return delimiter, columns


def _missing(header: list[str]) -> str:
    """The column that a header lacks, or ""."""
    for noun, names in (("image", _IMAGE_KEYS), ("caption", CAPTION_KEYS)):
        if not set(names) & set(_names(header)):
            return f"{noun} column ({', '.join(names)})"
    return ""


def _names(header: list[str]) -> list[str]:
    return [name.strip().lower() for name in header]
