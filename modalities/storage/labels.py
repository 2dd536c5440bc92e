"""Labels as written in shards, video lists and caption lists, and the classes that they make.

The classes are the labels that occur in the training set: whole numbers first, in numerical order, then names, sorted.
A label that is not 0, 1, 2, ... costs nothing: 7 and 30,000 are two classes, named "7" and "30000". Whole numbers of
one value are one class, whether written 7, 07 or 7.0. The label -1 means unlabelled, as does a missing or empty one;
other negative numbers are classes.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from jepa.config.effects import Use

UNLABELLED = -1  # number of the class of a sample without a label
LONGEST = 200  # characters
_WHOLE = re.compile(r"([+-]?\d{1,100})(?:\.0*)?")
_FRACTION = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Which labels are read, wherever a modality reads files.

    labels: `auto` reads the classes of the data, such as class folders; `none` reads none, so that class folders are
    plain folders, and no samples are held out from training for their labels.
    """

    labels: Literal["auto", "none"] = "auto"

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings of the whole section without effect, with the reason."""
        found: dict[str, str] = super().no_effect(use)  # type: ignore[misc]
        data = use.config.data
        return found | (
            {"labels": f"data.source={data.source} makes its own labels"} if data.source == data.world else {}
        )

    @property
    def reads_labels(self) -> bool:
        """Whether classes are read."""
        return self.labels == "auto"


@dataclass(frozen=True)
class Classes:
    """The classes of a training set: their names, and their numbers by the value of a label."""

    names: tuple[str, ...]
    numbers: Mapping[str, int]

    def number(self, label: str) -> int:
        """The class of a label, UNLABELLED for "" and "-1"; raises ValueError if the training set lacks it."""
        value = label_value(label)
        if value in ("", "-1"):
            return UNLABELLED
        if value not in self.numbers:
            raise ValueError(f"label '{label}' is not in the training set")
        return self.numbers[value]


NO_CLASSES = Classes((), {})


def classes_of(labels: Iterable[str]) -> Classes:
    """The classes of a training set, given its labels; none if all of it is unlabelled.

    The name of a class is its label as written; if its number is written in several ways, the usual way.
    """
    written: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        value = label_value(label)
        written[value] = value if value in written or "." in label else label.strip()
    if written.keys() == {"-1", "1"}:
        raise ValueError("the labels are -1 and 1, but -1 means unlabelled; write the two classes as 0 and 1")
    values = sorted(written.keys() - {"", "-1"}, key=_order)
    names = tuple(written[value] if _WHOLE.fullmatch(value) else value for value in values)
    return Classes(names, {value: number for number, value in enumerate(values)})


def label_value(label: str) -> str:
    """What makes two labels equal: the number if it is a whole one, otherwise the text."""
    text = label.strip()
    if text.isascii() and text.isalpha():  # most names
        return text
    whole = _WHOLE.fullmatch(text)
    return str(int(whole[1])) if whole else unicodedata.normalize("NFC", text)


def is_number(label: str) -> bool:
    """Whether a label is a whole number."""
    return _WHOLE.fullmatch(label.strip()) is not None


def read_label(value: object) -> str:
    """A label as a file holds it, such as a value in JSON  ->  its text, "" for null and NaN.

    Raises ValueError with the reason for anything but a whole number or one line of text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if type(value) is int:
        return f"{value:d}"
    if not isinstance(value, str):
        raise ValueError(f"the label is {_kind(value)}; it must be a whole number or a name")
    text = value.strip()
    if len(text) > LONGEST:
        raise ValueError(f"the label has {len(text):,} characters; {LONGEST} are allowed")
    if not text.isprintable():
        raise ValueError(f"the label {text[:40]!r} is not one line of text")
    if _FRACTION.fullmatch(text) and not is_number(text):
        raise ValueError(f"the label is {text}; it must be a whole number or a name")
    return text


def _order(value: str) -> tuple[bool, int, str]:
    whole = _WHOLE.fullmatch(value)
    return (False, int(whole[1]), "") if whole else (True, 0, value)


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case float():
            return f"{value:g}"
        case _:
            return "a list" if isinstance(value, list) else "an object"
