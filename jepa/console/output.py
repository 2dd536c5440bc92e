"""The console that messages and the progress bar share, and outside text made safe to print."""

import re
from functools import lru_cache
from typing import Any

from rich.console import Console
from rich.text import Text


def printer(**options: Any) -> Console:
    """A console that prints strings as they are: `[red]` and `:fire:` in a path are not markup. For style, use Text."""
    return Console(markup=False, emoji=False, highlight=False, **options)


CONSOLE = printer(stderr=True, soft_wrap=True)

# Control characters, line separators, marks that reverse the direction of text, and halves of surrogate pairs.
UNSAFE = "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"


def shown(text: object) -> str:
    r"""Text from outside (a path, a class name, a reason) on one line, safe to print: `\n` for a line break and so on.

    A byte of a file name that is not UTF-8 becomes `\xff`. Brackets need no escape, as our consoles read no markup.
    """
    return re.sub(UNSAFE, _escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    byte = 0xDC80 <= code <= 0xDCFF  # how Python holds a byte that is not UTF-8
    return f"\\x{code - 0xDC00:02x}" if byte else match.group().encode("unicode_escape").decode()


@lru_cache
def warn_once(message: str) -> None:
    """Print a warning on the first call with this message."""
    CONSOLE.print(Text.assemble(("warning:", "yellow"), f" {shown(message)}"))
