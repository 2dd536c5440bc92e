"""Which source a `data.root` holds, for configs that leave `data.source` null."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from jepa.modality import DataConfig
from modalities.storage.listing import is_written_by_a_run

_LOOKED_AT = 10_000  # files: enough to see what a folder holds, few enough for a slow disk

D = TypeVar("D", bound=DataConfig)


@dataclass(frozen=True)
class Evidence:
    """Files that point to a source.

    what: their name in messages. sources: those that read them. found: tells them by their path relative to the root.
    alone: more endings of a root that is a file itself.
    """

    what: str
    sources: tuple[str, ...]
    found: Callable[[PurePosixPath], bool]
    alone: tuple[str, ...] = ()


def by_ending(what: str, source: str, *endings: str, top_only: bool = False, alone: tuple[str, ...] = ()) -> Evidence:
    """Files with these endings, or only those at the top of the root."""

    def found(path: PurePosixPath) -> bool:
        return path.suffix.lower() in endings and not (top_only and len(path.parts) > 1)

    return Evidence(what, tuple(source.split("|")), found, alone)


SHARDS = by_ending("tar shards", "webdataset", ".tar")


def with_source(config: D, kinds: Sequence[Evidence], others: str = "") -> D:
    """The config with its `source`: if null, the generated data without a root, or else what the root holds.

    others: sources that no file points to, for messages. Raises ValueError if the source needs a root, if the root does
    not exist, or unless exactly one source reads everything that was found.
    """
    if config.source is None:
        source = config.world if config.root is None else infer_source(config.root.expanduser(), kinds, others)
        config = replace(config, source=source)
    if config.source != config.world and config.root is None:
        raise ValueError(f"source '{config.source}' needs data.root, the folder or file that holds it")
    return config


def source_and_root(config: DataConfig) -> tuple[Any, Path]:
    """Source and root of a config whose source reads files, see `with_source`."""
    assert config.source != config.world
    assert config.root is not None
    return config.source, config.root.expanduser()


def infer_source(root: Path, kinds: Sequence[Evidence], others: str = "") -> str:
    """The one source that reads what a root holds, see `with_source`."""
    if not root.exists() and next(root.parent.glob(root.name), None) is None:  # may be a pattern
        raise ValueError(f"data root {root} does not exist")
    paths = list(islice(_files(root), _LOOKED_AT)) if root.is_dir() else [PurePosixPath(root.name)]
    alone = root.suffix.lower() if root.is_file() else None
    examples = {
        kind.what: next((path for path in paths if kind.found(path) or alone in kind.alone), None) for kind in kinds
    }
    held = [kind for kind in kinds if examples[kind.what] is not None]
    common = [source for source in (held[0].sources if held else ()) if all(source in one.sources for one in held)]
    if len(common) == 1:
        return common[0]
    choices = ", ".join(f"{' or '.join(kind.sources)} for {kind.what}" for kind in held or kinds)
    seen = " and ".join(f"{kind.what} ({examples[kind.what]})" for kind in held)
    raise ValueError(
        f"data root {root} holds {seen or 'no files of a known source'}, so the source is not plain; "
        f"set data.source: {choices}{others and f', {others}'}"
    )


def _files(root: Path) -> Iterator[PurePosixPath]:
    """Visible files below a folder, relative to it, in a fixed order."""
    for folder, folders, names in os.walk(root, followlinks=True):
        below = PurePosixPath(Path(folder).relative_to(root).as_posix())
        if below.parts and is_written_by_a_run({*folders, *names}):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (below / name for name in sorted(names) if not name.startswith("."))
