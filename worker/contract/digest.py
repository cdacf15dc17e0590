"""SHA-256 digests of JSON and files, and atomic writes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Serialize so that equal values give equal bytes (sorted keys, no blanks, UTF-8).

    Raises ValueError for NaN, infinities and lone surrogates.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 as 64 lower-case hexadecimal digits, like every digest here."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of ``canonical_json(value)``."""
    return sha256_bytes(canonical_json(value))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, read in chunks. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o644) -> None:
    """Replace a file so that readers see the old content or the whole new one.

    A symbolic link is followed. A pipe or a device (``/dev/stdout``) cannot be replaced: the data
    is written into it. ``mode`` is applied regardless of the umask: files with messages must stay
    private. Raises OSError with ``path`` as its file, and leaves no temporary file behind.
    """
    lines = [data] if isinstance(data, bytes) else data
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as file:
                file.writelines(lines)
        else:
            _replace(path.resolve(), lines, mode)
    except OSError as error:
        # Not the temporary file, which an error in between may name.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _replace(path: Path, lines: Iterable[bytes], mode: int) -> None:
    # In the same directory, because a rename is only atomic within one file system.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(lines)
            file.flush()
            # Without this a power cut could leave the new name with an empty file behind it.
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames and deletions in a directory durable. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
