"""The tables of benchmarks/README.md are those of benchmarks/results."""

from benchmarks import readme


def test_tables_are_those_of_the_results() -> None:
    text = readme.README.read_text()
    assert readme.filled(text) == text, "run: python -m benchmarks.readme"


def test_a_place_takes_its_result() -> None:
    place = "before\n<!-- result masks -->\nreplaced by it\n<!-- end -->\nafter\n"
    found = readme.filled(place)
    assert "replaced by it" not in found
    assert (readme.FOLDER / "results" / "masks.md").read_text() in found
    assert readme.filled(found) == found
