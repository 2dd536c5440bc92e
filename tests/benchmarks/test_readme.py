"""The tables of pages are those of benchmarks/results."""

from pathlib import Path

import pytest

from benchmarks import readme


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_results(page: Path) -> None:
    assert readme.filled(page) == page.read_text(), "run: python -m benchmarks.readme"


def test_a_place_takes_its_result(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- result masks -->\nreplaced by it\n<!-- end -->\nafter\n")
    found = readme.filled(page)
    assert "replaced by it" not in found
    assert (readme.FOLDER / "results" / "masks.md").read_text() in found
    page.write_text(found)
    assert readme.filled(page) == found
