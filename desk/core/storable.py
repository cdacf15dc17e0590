"""Text as every database keeps it."""

from __future__ import annotations

from typing import Any


def storable(text: str) -> str:
    """Return a text without NUL, which PostgreSQL keeps in no text, and with halves of surrogate
    pairs, which are no characters, replaced."""
    text = text.replace("\x00", "")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def storable_json(value: Any) -> Any:
    """Return a JSON value with all its texts made so."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(name): storable_json(part) for name, part in value.items()}
    return [storable_json(part) for part in value] if isinstance(value, list) else value
