"""Records as JSON: one line of UTF-8, written compactly and read with checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from worker.contract.codec import decode, encode
from worker.contract.errors import RecordRefused

_R = TypeVar("_R")


def to_json(record: Any) -> bytes:
    """Return a record as its JSON. Raises ValueError for a number that JSON does not have."""
    return json.dumps(
        encode(record), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode("utf-8")


def read_json(
    kind: type[_R], value: bytes | str | None, what: str, check: Callable[[_R], None] | None = None
) -> _R:
    """Build a record of ``kind`` from its JSON. ``what`` names it in errors.

    Keys that are not known are passed over: they may be added within a schema version. ``check``
    raises ValueError for what types cannot say. Raises RecordRefused.
    """
    if value is None:
        raise RecordRefused(what, "there is no value")
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
        # The parser's own words may repeat the text.
        raise RecordRefused(what, "the value is not JSON") from None
    try:
        record = decode(kind, data, "the value", skip_unknown=True)
        assert isinstance(record, kind)
        if check is not None:
            check(record)
    except ValueError as error:
        raise RecordRefused(what, str(error)) from None
    return record
