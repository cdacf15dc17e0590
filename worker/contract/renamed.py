"""Settings that were renamed: whoever still uses the old name is told the new one."""

from __future__ import annotations

from collections.abc import Mapping


def explain_renamed(name: str, renamed: Mapping[str, str]) -> str | None:
    """Return the message for an old name, by a table of old to new; None for any other name."""
    new = renamed.get(name)
    return None if new is None else f"{name!r} has been renamed to {new!r}"
