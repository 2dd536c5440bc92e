"""Which stored images serve for training, for choosing hyper-parameters (validation) and for reporting (test)."""

import re
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from jepa.modality import Split

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def serving(stored: Collection[Split], split: Split) -> tuple[Split, tuple[Split, ...]]:
    """The splits as stored  ->  the one that `split` is taken from, and those that are carved out of that one.

    A lone validation or test split reports the result: it is our test split, and validation is carved from train.
    """
    held_out = [name for name in stored if name != "train"]
    if len(held_out) == 2:
        return split, ()
    if len(held_out) == 1:
        return (held_out[0], ()) if split == "test" else ("train", ("validation",))
    return "train", ("validation", "test")


def carved_split(name: str, carve: tuple[Split, ...], seed: int) -> Split:
    """The split of one item of a training set: each split in `carve` gets a tenth of all, train the rest.

    It follows from the item's name and the seed alone, so that adding or removing others moves nothing across.
    """
    digest = blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    tenth = int.from_bytes(digest, "big") * 10 >> 64
    return carve[tenth] if tenth < len(carve) else "train"


def named_splits(names: Iterable[str], where: str) -> dict[Split, str]:
    """Those of `names` that mean a split, in upper or lower case, by that split; two for one split are an error."""
    found: dict[Split, str] = {}
    for name in names:
        split = SPLIT_NAMES.get(name.lower())
        if split and split in found:
            raise ValueError(f"{where} holds both '{found[split]}' and '{name}': one {split} split is allowed")
        if split:
            found[split] = name
    return found


def files_by_split(paths: Sequence[Path], where: str) -> dict[Split, list[Path]]:
    """Files by the split that a part of their names means, as in `photos-train-000.tar`; all train where none does."""
    parts = [split_part(path.name) for path in paths]
    named = named_splits(sorted(set(parts)), where)
    if not named:
        return {"train": list(paths)}
    if "" in parts or "train" not in named:
        offender = f"{paths[parts.index('')].name} names no split" if "" in parts else "none is named train"
        ending = paths[0].suffix
        raise ValueError(
            f"{where}: {offender}; where one {ending} file is named after a split, all must be, such as train-0{ending}"
        )
    return {
        split: [path for path, each in zip(paths, parts, strict=True) if each == part] for split, part in named.items()
    }


def split_part(name: str) -> str:
    """The part of a file name that means a split, or nothing."""
    return next((part for part in re.split(r"[-_.]", name) if part.lower() in SPLIT_NAMES), "")
