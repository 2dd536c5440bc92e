"""One table of weight names per network and format, used in both directions: theirs -> ours, ours -> theirs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")  # of a block or a mask token


@dataclass(frozen=True)
class Entry:
    """A layer or a parameter, ours and theirs; `*` stands for a number.

    theirs: several names if they split what we stack along the first axis, such as query, key and value. shape: of a
    parameter there, if it differs from ours: `patches` for a convolution where we have a linear layer, `token` for
    [1, 1, D] where we have [D].
    """

    ours: str
    theirs: tuple[str, ...]
    parameters: tuple[str, ...] = ("weight", "bias")
    shape: str = "same"


def layer(ours: str, *theirs: str) -> Entry:
    """A layer with weight and bias."""
    return Entry(ours, theirs)


class Table:
    """Names of the weights of one network."""

    def __init__(self, *entries: Entry) -> None:
        self._ours = {
            _join(entry.ours, parameter): (entry, parameter) for entry in entries for parameter in entry.parameters
        }
        self._theirs = {_join(one, parameter) for entry, parameter in self._ours.values() for one in entry.theirs}

    def to_ours(self, state: Mapping[str, Tensor], network: str = "") -> dict[str, Tensor]:
        """Their weights under our names, as views of theirs where possible.

        network: prefix of the names in messages. Raises ValueError for a weight that is missing, or has no place.
        """
        if strange := sorted(name for name in state if not {name, _template(name)} & self._theirs):
            raise ValueError(f"{network}{strange[0]} has no place in these networks{_and_more(strange)}")
        counts = _counts(state)
        ours: dict[str, Tensor] = {}
        for name, (entry, parameter) in self._ours.items():
            there = [_join(one, parameter) for one in entry.theirs]
            count = counts.get(there[0].partition("*")[0], 0) if "*" in name else 1
            for number in map(str, range(count)):
                parts = [_weight(state, one.replace("*", number), network) for one in there]
                value = parts[0] if len(parts) == 1 else torch.cat(parts)
                ours[name.replace("*", number)] = _to_ours(value, entry, parameter)
        if any("*" in name for name in self._ours) and not any(name.startswith("blocks.") for name in ours):
            raise ValueError(f"{network}has no blocks")
        return ours

    def to_theirs(self, ours: Mapping[str, Tensor], patch: tuple[int, ...]) -> dict[str, Tensor]:
        """Our weights under their names, as views of ours; patch: shape of a patch, such as (3, 16, 16).

        Raises ValueError for a weight that the table lacks.
        """
        state: dict[str, Tensor] = {}
        for name, value in ours.items():
            template = name if name in self._ours else _template(name)
            if template not in self._ours:
                raise ValueError(f"the format has no place for {name}")
            entry, parameter = self._ours[template]
            number = found.group() if (found := _NUMBER.search(name)) else ""
            parts = [_join(one, parameter).replace("*", number) for one in entry.theirs]
            for part, piece in zip(parts, value.chunk(len(parts)), strict=True):
                state[part] = _to_theirs(piece, entry, parameter, patch)
        return state


def _to_ours(value: Tensor, entry: Entry, parameter: str) -> Tensor:
    if entry.shape == "token":
        return value.flatten()
    return value.flatten(1) if entry.shape == "patches" and parameter == "weight" else value


def _to_theirs(value: Tensor, entry: Entry, parameter: str, patch: tuple[int, ...]) -> Tensor:
    if entry.shape == "token":
        return value.view(1, 1, -1)
    return value.view(len(value), *patch) if entry.shape == "patches" and parameter == "weight" else value


def _weight(state: Mapping[str, Tensor], name: str, network: str) -> Tensor:
    found = state.get(name)
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise ValueError(f"{network}{name} is {'missing' if name not in state else 'no tensor of floats'}")
    return found


def _and_more(names: list[str]) -> str:
    return f" ({len(names)} such names)" if len(names) > 1 else ""


def _counts(state: Iterable[str]) -> dict[str, int]:
    """How many numbers follow each prefix, such as `blocks.`: the largest one and 1."""
    counts: dict[str, int] = {}
    for name in state:
        if found := _NUMBER.search(name):
            prefix = name[: found.start()]
            counts[prefix] = max(counts.get(prefix, 0), int(found.group()) + 1)
    return counts


def _template(name: str) -> str:
    return _NUMBER.sub("*", name, count=1)


def _join(name: str, parameter: str) -> str:
    return f"{name}.{parameter}" if parameter else name
