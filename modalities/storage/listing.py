"""Listing the samples below a folder, without a disk access per file."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from modalities.storage.index import Listed

Entries = list[tuple[str, bool]]  # names in a folder, and whether each is a folder
FEW = 10  # samples beside class folders, or images beside folders of frames, that may be passed over
_RUN_FILES = {"metrics.jsonl", "checkpoints", "report.html", "results.json", "tensorboard", "slurm"}
_PLAIN_ENDING = re.compile(r"\.\w{1,10}")


@dataclass(frozen=True)
class FileKind:
    """Which files are samples: those with these endings (lower case, with the dot), or whole folders of them.

    partly_labelled: files beside class folders are unlabelled samples; by default they are passed over if they are few,
    and otherwise make all samples unlabelled.
    companions: endings of other members of a tar file that belong to the sample with the same key, such as captions.
    installable: endings that a further package would read, and the command that installs it.
    listed: notes every folder that is listed, so that a later start can tell whether its names have changed.
    """

    noun: str  # as in "no images below ..."
    extensions: Collection[str]
    whole_folders: bool = False
    partly_labelled: bool = False
    companions: tuple[str, ...] = ()
    installable: tuple[tuple[str, str], ...] = ()
    listed: Listed | None = field(default=None, compare=False, repr=False)

    @property
    def rules(self) -> tuple[object, ...]:
        """What decides which files are samples."""
        return self.noun, sorted(self.extensions), self.whole_folders, self.partly_labelled, self.companions

    def advice(self, passed_over: Mapping[str, int]) -> tuple[str, ...]:
        """Sentences on files that were passed over, given their numbers by ending, but could be read."""
        found = ((passed_over.get(ending, 0), ending, command) for ending, command in self.installable)
        return tuple(f"{count:,} end in {ending}; to read them: {command}" for count, ending, command in found if count)


def walk(folder: Path, kind: FileKind, passed_over: Counter[str] | None = None) -> Iterator[str]:
    """Paths of the samples below `folder`, relative to it: depth first, sorted by name.

    passed_over: counts what is no sample, by ending. Run directories and sweeps of this program are left out.
    """
    return _walk(folder, "", kind, set(), Counter() if passed_over is None else passed_over)


def walk_below(folder: Path, name: str, kind: FileKind) -> Iterator[str]:
    """Paths of the samples in one folder of `folder`, relative to the latter."""
    return _walk(folder, f"{name}/", kind, {_identity(folder)}, Counter())


def _walk(
    folder: Path, prefix: str, kind: FileKind, visited: set[tuple[int, int]], passed_over: Counter[str]
) -> Iterator[str]:
    status = (folder / prefix).stat()
    identity = status.st_dev, status.st_ino
    if identity in visited:  # a link to a parent folder would never end
        return
    visited.add(identity)
    found = entries(folder / prefix, kind, status)
    if prefix and is_written_by_a_run({name for name, _ in found}):
        passed_over[f"the run directory {prefix.removesuffix('/')}"] += 1
        return
    if kind.whole_folders:
        own = sum(not is_folder and ending(name) in kind.extensions for name, is_folder in found)
        folders = [name for name, is_folder in found if is_folder]
        inner = chain.from_iterable(_walk(folder, f"{prefix}{name}/", kind, visited, passed_over) for name in folders)
        first = next(inner, None)
        if own and (own > FEW or first is None):
            yield prefix.removesuffix("/") or "."
        elif own:
            passed_over[f"beside {kind.noun}"] += own
        yield from chain([] if first is None else [first], inner)
        return
    for name, is_folder in found:
        if is_folder:
            yield from _walk(folder, f"{prefix}{name}/", kind, visited, passed_over)
        elif ending(name) in kind.extensions:
            yield prefix + name
        else:
            passed_over[_described(name)] += 1


def entries(folder: Path, kind: FileKind, status: os.stat_result | None = None) -> Entries:
    """Sorted visible entries of a folder, and whether each is a folder, without a disk access per file.

    Pipes and devices are left out. Broken links stay in; they count as unreadable files. status: of the folder, if it
    is known.
    """
    if kind.listed is not None:
        kind.listed.add(folder, (status or folder.stat()).st_mtime_ns)
    with os.scandir(folder) as found:
        return sorted(
            (entry.name, entry.is_dir())
            for entry in found
            if not entry.name.startswith(".") and (entry.is_file() or entry.is_dir() or entry.is_symlink())
        )


def ending(name: str) -> str:
    """The ending of a file name in lower case, with the dot; empty without one."""
    return name[name.rfind(".") :].lower() if "." in name else ""


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _described(name: str) -> str:
    found = ending(name)
    return found if _PLAIN_ENDING.fullmatch(found) else "without ending"


def is_written_by_a_run(names: Collection[str]) -> bool:
    """Whether a folder with these entries is a run directory, or that of a sweep."""
    starts = set(names) == {"lock"}
    return starts or "sweep.json" in names or ("config.yaml" in names and not _RUN_FILES.isdisjoint(names))
