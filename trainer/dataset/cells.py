"""Values of typed files (JSON, Parquet) as the text they stand for."""

from __future__ import annotations

from typing import Any

from trainer.errors import BadInput


def message_text(value: Any, where: str, column: str) -> str:
    """Return a message; nothing at all is an empty one. Raises BadInput for other types."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadInput(f"{where}: {column!r} must be text, not {type(value).__name__}")
    return value


def label_text(value: Any, where: str, column: str) -> str:
    """Return a label or an id as text: whole numbers are taken too, since class numbers and
    ticket numbers are common. Raises BadInput for other types."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(
            f"{where}: {column!r} must be text or a whole number, not {type(value).__name__}"
        )
    return str(value).strip()
