"""Rules for captions, the same for all file formats.

A caption is Unicode text, normalised to NFC. Runs of whitespace become one space, other control characters are removed,
and only the first 2,000 characters are kept: tokenizers cut far earlier, and must not stall on a book. Empty captions
are dropped. A caption that is not text, such as null or a number, makes a bad sample.
"""

import re
import unicodedata
from collections.abc import Mapping

from jepa.modality import Split
from modalities.storage.splits import split_named

CAPTION_KEYS = ("caption", "text", "title")
NO_CAPTION = "no caption"
LONGEST = 2_000  # characters

# Unicode class Cc without whitespace, and halves of surrogate pairs, which JSON can contain but UTF-8 cannot.
_DROPPED = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")
_NO_PATH = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
# Composing joins only a few characters into one, and would take hours for a million accents on one letter.
_BEFORE_COMPOSING = 4 * LONGEST


class MalformedError(Exception):
    """Raised with a reason for a malformed entry, which is one bad sample."""


def clean_caption(text: str) -> str:
    """A caption as written  ->  cleaned, possibly empty. Cleaning twice changes nothing more."""
    if not (text.isascii() and text.isprintable()):
        text = _DROPPED.sub("", text)
    text = " ".join(text.split())[:_BEFORE_COMPOSING]
    return unicodedata.normalize("NFC", text)[:LONGEST].rstrip()


def captions_of(fields: Mapping[str, object]) -> list[str]:
    """Captions under `caption`, otherwise `text`, otherwise `title`, and under `captions`; cleaned, without empty ones.

    Each is a string or a list of strings; any other type raises MalformedError.
    """
    single = next((fields[key] for key in CAPTION_KEYS if key in fields), [])
    return _texts(single) + _texts(fields.get("captions", []))


def split_of(value: object) -> Split | None:
    """The split with this name, None if no name is given; raises ValueError for any other value."""
    if value is None or value == "":
        return None
    word = value.strip().lower() if isinstance(value, str) else ""
    if split := "train" if word == "restval" else split_named(word):  # Karpathy's name for more training images
        return split
    raise ValueError(f"unknown split {value!r:.40}; allowed are train, val, test and their usual spellings")


def is_path(value: object) -> bool:
    """Whether it can be the path of a file: text of Unicode and escaped bytes of file names."""
    return isinstance(value, str) and bool(value.strip()) and not _NO_PATH.search(value)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [cleaned] if (cleaned := clean_caption(value)) else []
    if not isinstance(value, list):
        raise MalformedError(f"a caption is {_kind(value)}; text is needed")
    if odd := [item for item in value if not isinstance(item, str)]:
        raise MalformedError(f"a caption is {_kind(odd[0])}; text is needed")
    return [text for item in value for text in _texts(item)]


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case _:
            return "a list" if isinstance(value, list) else "an object"
