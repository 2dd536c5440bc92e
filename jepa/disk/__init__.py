"""Writing files: a full disk, or anything else that keeps a file from being written, is one sentence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jepa.console.causes import reason_in
from jepa.errors import UserError


class WriteError(UserError, RuntimeError):
    """A file cannot be written, perhaps because the disk is full; the message is one sentence for the user."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system in the body, which writes `path`, into WriteError."""
    try:
        yield
    except Exception as error:  # torch.save raises a RuntimeError instead of an OSError
        reason = reason_in(error)
        if not reason:
            raise
        raise WriteError(f"{path} cannot be written: {reason}") from error


@contextmanager
def replacing(path: Path, aside: Path) -> Iterator[None]:
    """Write a file through a second one, `aside`, which the body writes and which then replaces it atomically.

    An error removes what was written, so that it does not keep the disk full. Raises WriteError.
    """
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield
            os.replace(aside, path)  # noqa: PTH105 - atomic
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str, aside: Path) -> None:
    """Write a text file through `aside`; lone surrogates, as in names that are not UTF-8, are escaped."""
    with replacing(path, aside):
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")
