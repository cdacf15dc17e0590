"""What the files of the circle share: their rights, and how one that cannot be read is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worker.contract.codec import encode
from worker.contract.digest import write_atomically
from worker.contract.errors import RecordRefused

PRIVATE = 0o640
"""Rights of a file that may hold messages: its owner and its group, nobody else."""


def read_text(path: Path) -> str:
    """Return a file's text. Raises RecordRefused."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RecordRefused(str(path), error.strerror or type(error).__name__) from error
    except UnicodeDecodeError as error:
        raise RecordRefused(
            str(path),
            f"not UTF-8 from byte {error.start} on: save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
        ) from None


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON that a person can read as well. Raises OSError, ValueError."""
    text = json.dumps(encode(record), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode(), mode=PRIVATE)
