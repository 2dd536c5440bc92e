"""Rows of tables: quotes, line breaks, delimiters; ways to write the path of a file."""

import csv
from io import StringIO
from pathlib import Path

from hypothesis import given, settings, strategies as st

from modalities.storage.paths import FileKeys
from modalities.storage.tables import BadRow, table_rows

ENDINGS = (".png", ".jpg")
plain = st.lists(st.text('ab "', max_size=8), min_size=1, max_size=8)
anything = st.lists(st.text('ab "\n\t,;', max_size=12), min_size=1, max_size=8)


def read(text: str, delimiter: str) -> list[tuple[int, list[str] | BadRow]]:
    return list(table_rows(StringIO(text, newline=""), 2, delimiter, 2, ENDINGS))


@given(plain, st.sampled_from(",\t;"), st.booleans())
@settings(max_examples=200)
def test_lines_written_without_quoting_never_merge(texts: list[str], delimiter: str, image_first: bool) -> None:
    rows = [[f"{number}.png", text] for number, text in enumerate(texts)]
    lines = [delimiter.join(row if image_first else row[::-1]) for row in rows]
    found = read("\n".join(lines), delimiter)
    assert [number for number, _ in found] == [number for number, line in enumerate(lines, start=2) if line.strip()]
    if delimiter == "\t":
        assert not any(isinstance(row, BadRow) for _, row in found)


@given(anything, st.sampled_from(",\t;"))
@settings(max_examples=200)
def test_quoted_fields_keep_line_breaks_quotes_and_delimiters(texts: list[str], delimiter: str) -> None:
    rows = [[f"{number}.png", text] for number, text in enumerate(texts)]
    csv.writer(file := StringIO(newline=""), delimiter=delimiter).writerows(rows)
    assert [row for _, row in read(file.getvalue(), delimiter)] == rows


def test_all_ways_to_write_a_path_are_one_file_but_links_are_not_followed(tmp_path: Path) -> None:
    (folder := tmp_path / "lists").mkdir()
    (tmp_path / "link").symlink_to(folder)
    keys = [FileKeys(path) for path in (folder, tmp_path / "link")]
    inside = ["caf\u00e9.png", "./caf\u00e9.png", ".//cafe\u0301.png", "x/../caf\u00e9.png", "../lists/caf\u00e9.png"]
    for key in keys:
        assert {key(name) for name in [*inside, f"{folder}//caf\u00e9.png"]} == {"caf\u00e9.png"}
        beside = [
            key("../a.png"),
            key(f"{tmp_path}/./a.png"),
            key(f"/{tmp_path}/a.png"),
            key("./../a.png"),
            key("x/../../a.png"),
        ]
        assert set(beside) == {f"{tmp_path}/a.png"}
        assert len({key(name) for name in ("a.png", "A.png", "b/a.png", ".a.png", "../b/a.png", "a.png.png")}) == 6
    assert keys[0](f"{tmp_path}/link/a.png") != keys[0]("a.png")
    assert keys[1](f"{tmp_path}/link/a.png") == keys[1]("a.png") == "a.png"
