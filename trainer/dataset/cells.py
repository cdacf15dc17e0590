"""Cells that decide where a row goes: its time and its language, read strictly.

An error names the place and what kind of value stands there, never the value: with a wrong column
named it is a message's text.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from trainer.errors import BadInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"[0-9]{9,13}(?:\.[0-9]{1,9})?")
# 1973 to 5138 as seconds, and on from 1973 as milliseconds; 20240506 is a date, or a mistake.
_FIRST_SECONDS, _FIRST_MILLISECONDS, _END = 1e8, 1e11, 1e13

_LANGUAGE = re.compile(r"[^\W\d_]+(?:[-_ ][^\W_]+)*")
_LANGUAGE_CHARS = 35
"""RFC 5646, section 4.4.1: what a field for language tags has to hold."""

UNKNOWN_LANGUAGE = "unknown"


def read_time(value: Any, column: str, where: str) -> datetime:
    """Return a time as it is written, aware or naive.

    Takes what ISO 8601 and RFC 3339 have (``2024-05-06``, ``2024-05-06 07:08:09``,
    ``2024-05-06T07:08:09.123Z``), times and dates of Parquet, and seconds or milliseconds since
    1970. Raises BadInput: an empty cell has no place in an order, and ``05/06/2024`` has two.
    """
    try:
        if isinstance(value, datetime):
            return value
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _since_1970(float(value))
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            return _since_1970(float(value))
        if isinstance(value, str) and value.strip():
            return datetime.fromisoformat(value.strip())
    except (ValueError, OverflowError):
        pass  # told below, without the words of the exception, which quote the value
    raise BadInput(
        f"{where}: {column!r} holds no time that can be read ({_kind(value)}): write it as "
        "2024-05-06T07:08:09Z, or as seconds or milliseconds since 1970"
    )


def read_language(value: Any, column: str, where: str) -> str:
    """Return a language's code or name, case folded; ``UNKNOWN_LANGUAGE`` where the cell is empty.
    Raises BadInput for what cannot be one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return UNKNOWN_LANGUAGE
    name = value.strip() if isinstance(value, str) else ""
    if len(name) > _LANGUAGE_CHARS or not _LANGUAGE.fullmatch(name):
        raise BadInput(
            f"{where}: {column!r} holds no language ({_kind(value)}): write a code or a name, such "
            "as de, pt-BR or french"
        )
    return name.casefold()


def _since_1970(number: float) -> datetime:
    if not _FIRST_SECONDS <= number < _END:
        raise ValueError("neither seconds nor milliseconds of our time")
    return _EPOCH + timedelta(seconds=number / 1000 if number >= _FIRST_MILLISECONDS else number)


def _kind(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "it is empty"
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    return f"a value of type {type(value).__name__}"
