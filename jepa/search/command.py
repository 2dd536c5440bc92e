"""The command line of `jepa search`."""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jepa.config import ConfigError
from jepa.console import CONSOLE, command_parser, shown
from jepa.errors import exit_status
from jepa.search.model import QueryModel
from jepa.search.page import write_neighbours
from jepa.search.queries import Query, read_queries
from jepa.search.run import neighbours
from jepa.search.stored import VectorFile, open_vectors
from jepa.search.table import Neighbour, lines


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa search` -> exit status."""
    parser = command_parser(
        "search",
        "Find the nearest vectors, by cosine, among those that `jepa embed` wrote. A query is a file, the name of a "
        "row, or, for captioned images, a sentence.",
        "features.parquet photos/cat.jpg --html cats.html",
        'features.parquet "two red balls" "a blue cube" -k 5',
    )
    parser.add_argument("features", type=Path, help="file that `jepa embed` wrote")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="file, name of a row, or sentence in quotes")
    parser.add_argument(
        "-k", type=int, default=10, dest="count", metavar="N", help="neighbours per query (default: 10)"
    )
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write a page of thumbnails, which opens offline")
    parser.add_argument("--source", help="the model, if it is no longer where it made the vectors")
    parser.add_argument("--exact", action="store_true", help="compare with all vectors, however many there are")
    parser.add_argument("--device", default="cpu", help="of the model (default: cpu)")
    parser.add_argument("--trust", action="store_true", help="import code that the model names")
    return exit_status(lambda: _search(parser.parse_args(argv)))


def _search(arguments: argparse.Namespace) -> int:
    if arguments.count < 1:
        raise ConfigError(f"-k {arguments.count}: at least 1 is needed")
    vectors = open_vectors(arguments.features)
    model = cache(lambda: QueryModel.of(vectors, arguments.source, arguments.device, arguments.trust))
    queries = read_queries(arguments.queries, vectors, model)
    found = neighbours(vectors, queries, arguments.count, arguments.exact)
    for query, near in zip(queries, found, strict=True):
        print(f"nearest to {shown(query.text)}")
        print("\n".join(f"  {line}" for line in lines(near)))
    if arguments.html:
        _write(arguments.html, vectors, list(zip(queries, found, strict=True)), model())
    return 0


def _write(path: Path, vectors: VectorFile, found: Sequence[tuple[Query, list[Neighbour]]], model: QueryModel) -> None:
    """Write the page, and say how many thumbnails it lacks."""
    own = {query: query.own[0] for query, _ in found if query.own}
    rows = {one.row: one.facts for _, near in found for one in near} | vectors.facts(own.values())
    pictures, reasons = model.pictures(rows)
    words = [f"The nearest of {vectors.rows:,} vectors in {vectors.path}, by cosine, as the network sees them."]
    if reasons:
        words.append(f"{len(reasons)} of {len(rows)} pictures cannot be shown: {reasons[0]}.")
        CONSOLE.print(shown(words[-1]))
    queries = []
    for query, near in found:
        of_file = model.picture_of(query.text) if query.kind == "file" else None
        queries.append((query, pictures.get(own[query]) if query in own else of_file, near))
    CONSOLE.print(shown(write_neighbours(path, f"Neighbours in {vectors.path.name}", words, queries, pictures)))
