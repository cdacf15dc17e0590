"""The digest of an adapter: the one place where it is computed, from the manifest's JSON.

It is taken over the JSON value that stands in ``manifest.json``, not over the fields of the
classes that read it, so that a class may rename a field without making every stored adapter look
altered. The canonical form:

- object keys are sorted by code point, no blanks stand between tokens, the text is UTF-8;
- a number without a fractional part is written as an integer: ``8``, ``8.0`` and ``8e0`` are one
  number in JSON, and a tool that rewrites the file may exchange them;
- any other number is the shortest decimal that reads back as the same IEEE 754 double;
- every key counts. Nothing is filled in or left out: a key that is absent and a key that is null
  are two manifests. Keys that are not known are refused when the manifest is read.

Formatting and the order of keys do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.contract.digest import sha256_json


def manifest_digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of a manifest's parsed JSON.

    Raises ValueError where a value has no JSON form (NaN, a lone surrogate).
    """
    return sha256_json(_whole_numbers(data))


def _whole_numbers(value: Any) -> Any:
    """Return ``value`` with every whole number as an integer."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(inner) for inner in value]
    return value
