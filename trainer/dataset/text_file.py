"""A text file, decoded strictly: a wrong encoding is said, never papered over."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import BadInput


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Read a whole file; a byte order mark is dropped, line ends stay as they are.

    Raises BadInput with the byte offset and the line when a byte does not fit the encoding.
    """
    data = read_bytes(path)
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise BadInput(f"--encoding {encoding!r}: there is no such encoding") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{path.name}:{line}: byte {error.start} (0x{data[error.start]:02x}) is not "
            f"{encoding}: name the right --encoding (often cp1252 or utf-16), or save the file "
            "as UTF-8"
        ) from error
    return text.removeprefix("\ufeff")


def read_bytes(path: Path) -> bytes:
    """Read a whole file. Raises BadInput when it is not there or holds nothing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot read it: {error.strerror}") from error
    if not data.strip():
        raise BadInput(f"{path.name}: the file is empty")
    return data
