"""Copies the tables of benchmarks/results into benchmarks/README.md: python -m benchmarks.readme

Between `<!-- result NAME -->` and `<!-- end -->` stands the page results/NAME.md. A test holds both equal.
"""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
_PLACE = re.compile(r"(<!-- result ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MISSING = "Not measured yet.\n"


def filled(text: str) -> str:
    """The text with every result in its place."""
    return _PLACE.sub(lambda found: f"{found[1]}{_page(found[2])}{found[3]}", text)


def _page(name: str) -> str:
    path = FOLDER / "results" / f"{name}.md"
    return f"{path.read_text()}\n[File with all rounds](results/{name}.json).\n" if path.exists() else _MISSING


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
