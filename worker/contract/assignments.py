"""``key=value``, as the command lines of every program take it."""

from __future__ import annotations

import string
import tomllib
from collections.abc import Callable
from typing import Any

_NAME_CHARACTERS = string.ascii_letters + string.digits + "._-"


def split_assignment(
    text: str,
    option: str,
    *,
    form: str = "key=value",
    needs_value: bool = False,
    error: Callable[[str], Exception] = ValueError,
) -> tuple[str, str]:
    """Split ``text`` at its first equals sign; blanks around the key are dropped.

    The value stays as it is: it may hold equals signs and blanks, and may be empty unless
    ``needs_value``. Raises ``error``, naming the ``option`` that was given and the ``form`` it
    takes, where there is no equals sign, no key or no value that is needed.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or (needs_value and not value.strip()):
        # What was meant as the value may be a password.
        name = text[: len(text) - len(text.lstrip(_NAME_CHARACTERS))]
        shown = text if text in {name, f"{name}="} else f"{name}..."
        raise error(f"{option} {shown}: write it as {form}")
    return key.strip(), value


def toml_value(text: str) -> Any:
    """Read a value as TOML (``3``, ``true``, ``[1, 2]``); what is not TOML is the text it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # also a number of 5,000 digits, 1,000 open brackets
        return text
