"""Copies the tables of benchmarks/results into the pages that show them: python -m benchmarks.readme

Between `<!-- result NAME -->` and `<!-- end -->` stands the page results/NAME.md, and the figure docs/images/NAME.svg
if there is one. A test holds them equal.
"""

import os
import re
from pathlib import Path

FOLDER = Path(__file__).parent
IMAGES = FOLDER.parent / "docs" / "images"
PAGES = (FOLDER / "README.md", FOLDER.parent / "docs" / "small_data.md")
_PLACE = re.compile(r"(<!-- result ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MISSING = "Not measured yet.\n"


def filled(page: Path) -> str:
    """The text of a page with every result in its place."""
    return _PLACE.sub(lambda found: f"{found[1]}{_result(found[2], page)}{found[3]}", page.read_text())


def _result(name: str, page: Path) -> str:
    path, figure = FOLDER / "results" / f"{name}.md", IMAGES / f"{name}.svg"
    if not path.exists():
        return _MISSING
    shown = f"\n![{name}]({_link(figure, page)})\n" if figure.exists() else ""
    data = next(one for ending in ("json", "jsonl") if (one := path.with_suffix(f".{ending}")).exists())
    return f"{path.read_text()}{shown}\n[File with all rounds]({_link(data, page)}).\n"


def _link(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(filled(each))
