"""What a query on the command line means: a row, a file or a sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jepa.config import ConfigError
from jepa.modality import BadSampleError
from jepa.search.model import QueryModel, written
from jepa.search.nearest import Floats, unit
from jepa.search.stored import VectorFile


@dataclass(frozen=True, eq=False)
class Query:
    """A query and its vector [D]. own: its rows, which are left out of its neighbours."""

    text: str
    kind: Literal["row", "file", "sentence"]
    vector: Floats
    own: Sequence[int] = ()


def read_queries(texts: Sequence[str], vectors: VectorFile, model: Callable[[], QueryModel]) -> list[Query]:
    """The queries in order. The name of a row needs no model; a file, and else a sentence, does. Raises ConfigError.

    A name that several rows have, such as windows of a video, stands for their mean.
    """
    rows, names = vectors.named(set(map(written, texts))), map(written, texts)
    return [
        _of_rows(text, rows[name], vectors) if name in rows else _encoded(text, vectors, model())
        for text, name in zip(texts, names, strict=True)
    ]


def _of_rows(name: str, rows: Sequence[int], vectors: VectorFile) -> Query:
    return Query(name, "row", unit(vectors.vectors(rows)).mean(axis=0), rows)


def _encoded(text: str, vectors: VectorFile, model: QueryModel) -> Query:
    if _exists(text) and not (model.has_text and Path(text).is_dir()):  # a folder may have the name of a thing
        if not model.reads_files:
            name = type(model.source.modality).__name__
            raise ConfigError(
                f"'{text}' is not the name of a row of {vectors.path}, and {name} has no method stored_input to read "
                "other files; use the name of a row"
            )
        try:
            return Query(text, "file", model.of_file(Path(text)))
        except BadSampleError as error:
            raise ConfigError(f"{error.source} cannot be read: {error.reason}") from error
        except ValueError as error:
            raise ConfigError(f"{text}: {error}") from error
    wrong = f"'{text}' is neither the name of a row of {vectors.path} nor a file"
    if not model.has_text:
        raise ConfigError(f"{wrong}; sentences need vectors of captioned images with --pooling joint")
    if " " not in text and (Path(text).suffix or "/" in text):  # a wrong path rather than a word
        raise ConfigError(wrong)
    return Query(text, "sentence", model.of_sentence(text))


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # of a long sentence
        return False
