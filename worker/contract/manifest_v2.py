"""Manifests of schema 2: read as those of schema 3, under the digest they were published with.

There was one kind of model, which nothing named: ``lora-code``. The digest is taken over the JSON
as it stands, as that of schema 3 is (see ``manifest_digest``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 2

_LATER = ("kind", "head")


def upgrade(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same manifest as one of schema 3. Raises ValueError where it has keys of that."""
    for key in _LATER:
        if key in data:
            raise ValueError(f"a manifest of schema {SCHEMA_VERSION} has the key {key!r}")
    return {**data, "schema_version": 3, "kind": "lora-code"}
