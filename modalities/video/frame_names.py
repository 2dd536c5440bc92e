"""The order of frames that are stored as files, from their names."""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

Key = list[tuple[int, float | int | str]]

_COUNT = re.compile(r"(\d+)")
_DECIMAL = re.compile(r"(\d+\.\d+|\d+)")
_EVEN = 1.3  # times are evenly spaced if no gap is longer than this many times the shortest
_EXPONENT = re.compile(r"\d[eE]-\d")  # 1e-05, as Python writes small numbers
_LONG = 6  # digits after the point; counts have no more


def in_order(names: Sequence[str]) -> list[str]:
    """File names of frames in the order of the numbers in them: 2.jpg before 10.jpg, 0.04.jpg before 0.2.jpg.

    Numbers with a point are either counts (shot 1.10 after 1.9) or times in seconds (1.10 before 1.9). Raises
    ValueError if the names do not tell which, or do not give each frame a number of its own.
    """
    by_count = {name: _key(name, _COUNT) for name in names}
    by_time = {name: _key(name, _DECIMAL) for name in names}
    counted, timed = (sorted(names, key=keys.__getitem__) for keys in (by_count, by_time))
    are_times = counted != timed and _are_times(counted, timed)
    _check_numbers(timed if are_times else counted, by_time if are_times else by_count)
    return timed if are_times else counted


def _are_times(counted: Sequence[str], timed: Sequence[str]) -> bool:
    """Whether numbers with a point are times: they are evenly spaced, or have the digits that times have."""
    evenly_timed, evenly_counted = _is_even(_last_numbers(timed, _DECIMAL)), _counts_are_even(counted)
    if evenly_timed != evenly_counted:
        return evenly_timed
    found = (re.findall(r"\d+\.(\d+)", name.rpartition(".")[0]) for name in counted)
    fractions = [digits[-1] for digits in found if digits]
    look_timed = any(len(digits) > _LONG or (digits[0] == "0" and len(digits) > 1) for digits in fractions)
    look_counted = any(digits[-1] == "0" and len(digits) > 1 for digits in fractions)
    if evenly_timed or look_timed == look_counted:
        one, other = next((one, other) for one, other in zip(counted, timed, strict=True) if one != other)
        raise ValueError(
            f"names such as {one} and {other} may state counts or seconds, which gives two orders; "
            "write numbers with equally many digits"
        )
    return look_timed


def _counts_are_even(counted: Sequence[str]) -> bool:
    """Whether the last counts are evenly spaced among names that are equal before them, as in 1.1, 1.2, 2.1, 2.2."""
    groups = groupby(counted, key=lambda name: _COUNT.split(name.rpartition(".")[0])[:-2])  # text before the last count
    return all(_is_even(_last_numbers(list(group), _COUNT), tolerance=1) for _, group in groups)


def _last_numbers(names: Sequence[str], number: re.Pattern[str]) -> list[float]:
    return [[value for _, value in _key(name, number) if not isinstance(value, str)][-1] for name in names]


def _is_even(numbers: Sequence[float], tolerance: float = _EVEN) -> bool:
    gaps = [after - before for before, after in pairwise(numbers)]
    return not gaps or (min(gaps) > 0 and max(gaps) <= tolerance * min(gaps))


def _key(name: str, number: re.Pattern[str]) -> Key:
    """Sort key that compares numbers in names by value."""
    stem, _, ending = name.rpartition(".")
    parts = [part for part in number.split(stem) if part]
    return [(0, _value(part)) if part[0].isdecimal() else (1, part) for part in parts] + [(1, ending)]


def _value(number: str) -> float | int:
    return float(number) if "." in number else int(number)


def _check_numbers(names: Sequence[str], keys: Mapping[str, Key]) -> None:
    """Raise ValueError if the numbers do not order the names.

    A name may lack a number that others have, have the same number as another one or another text before its number (as
    for two kinds of images in a folder, or with a minus sign), or have a number with an exponent.
    """
    numbered = [name for name in names if any(kind == 0 for kind, _ in keys[name])]
    if numbered and len(numbered) < len(names):
        without = next(name for name in names if all(kind == 1 for kind, _ in keys[name]))
        raise ValueError(f"{without} has no number, unlike {numbered[0]}")
    if exponent := next(filter(_EXPONENT.search, numbered), None):
        raise ValueError(f"{exponent} has a number with an exponent; write it in full")
    prefixes = {_COUNT.split(name, maxsplit=1)[0]: name for name in reversed(numbered)}
    if len(prefixes) > 1:
        one, other = list(prefixes.values())[:2]
        raise ValueError(f"{other} and {one} have different text before the number, so the order is unknown")
    for one, other in pairwise(numbered):
        if keys[one][:-1] == keys[other][:-1]:
            raise ValueError(f"{one} and {other} have the same number")
