"""Reading the headers of a tar file to its end, with the reason why it ends early."""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_AFTER_END = 2**16  # bytes after the end mark that are searched for a second archive
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\3\4": "zip",
}


class TarDamageError(Exception):
    """Raised where a tar file cannot be read further; the message is a sentence."""


def members(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """The complete members of a tar file of `size` bytes; raises TarDamageError if it is none or is cut off."""
    position = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # they would all stay in memory
                if member.offset_data + (0 if member.issparse() else member.size) > size:
                    raise TarDamageError(f"damaged tar file: cut off within {member.name}")
                if member.offset <= position or member.size < 0:
                    raise TarDamageError(f"damaged tar file: a wrong size in the header at byte {member.offset}")
                position = member.offset
                yield member
            _check_end(file, archive.offset, size)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise TarDamageError((position < 0 and _no_tar(file)) or f"damaged tar file: {error}") from error


def _check_end(file: BinaryIO, offset: int, size: int) -> None:
    file.seek(offset)  # tarfile takes garbage after the first header for the end
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise TarDamageError(f"damaged tar file: no end mark at byte {offset}")
    if file.read(_AFTER_END).strip(b"\0"):
        raise TarDamageError(
            f"the tar file has more data after its end mark at byte {offset}; if several were joined, give each a file"
        )


def _no_tar(file: BinaryIO) -> str:
    """Why a file is not a tar file; "" if it begins like one."""
    file.seek(0)
    start = file.read(_BLOCK)
    if not start:
        return "an empty file, not a tar file"
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            return f"compressed by {program}; shards are read at any place, so decompress it"
    if len(start) == _BLOCK and start[257:262] == b"ustar":
        return ""
    text = " ".join(start[:60].decode("latin-1").split())
    return f"not a tar file; it begins with '{text}'" if text.isascii() and text.isprintable() else "not a tar file"
