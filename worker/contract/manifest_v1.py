"""Manifests of schema 1: read as those of schema 2, under the digest they were published with.

Two keys had other names: ``reference.canary`` is ``reference.probes`` now, and ``prompt.masking``
is ``prompt.redaction``. The digest was taken over the fields as they were read, not over the JSON:
fields of type float were floats (``2`` counted as ``2.0``), and keys that were absent had their
defaults. Nothing here may change: adapters are stored under these digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA_VERSION = 1


def is_version_1(data: Mapping[str, Any]) -> bool:
    """Tell whether a manifest says that it is of schema 1."""
    version = data.get("schema_version")
    return isinstance(version, int) and not isinstance(version, bool) and version == SCHEMA_VERSION


def upgrade(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same manifest by the names of schema 2.

    What is malformed is left as it is, for the reader to refuse. Raises ValueError when a name of
    schema 2 stands in it.
    """
    upgraded = {**data, "schema_version": 2}
    for part, old, new in (("prompt", "masking", "redaction"), ("reference", "canary", "probes")):
        if part in data:
            upgraded[part] = _rename(data[part], old, new)
    return upgraded


def normal_form(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what schema 1 took the digest over. ``data`` is a manifest that was read."""
    normal = {
        "data": {},
        "metrics": {},
        "versions": {},
        **_without_none(data, "reference"),
        "taxonomy": _taxonomy(data["taxonomy"]),
        "prompt": {"normalization": "nfc-1", **_without_none(data["prompt"], "masking")},
        "lora": _floats(data["lora"], ["alpha"]),
        "calibration": _floats(
            {"nll": None, "ece": None, **data["calibration"]}, ["temperature", "nll", "ece"]
        ),
        "thresholds": _all_floats({"review_off_label_mass": None, **data["thresholds"]}),
        "golden": [{"truncated": False, **golden} for golden in data["golden"]],
    }
    if "reference" in normal:
        normal["reference"] = {
            name: inner if name == "canary" else _all_floats(inner)
            for name, inner in normal["reference"].items()
        }
    return normal


def _rename(value: Any, old: str, new: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    if new in value:
        raise ValueError(f"a manifest of schema 1 has the key {new!r}; there it is {old!r}")
    return {new if key == old else key: inner for key, inner in value.items()}


def _without_none(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if name != key or inner is not None}


def _taxonomy(value: Mapping[str, Any]) -> dict[str, Any]:
    labels = [{"description": "", **label} for label in value["labels"]]
    return {"description": "", **value, "labels": labels}


def _floats(value: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    floats = {key: float(value[key]) for key in keys if value[key] is not None}
    return {**value, **floats}


def _all_floats(value: Mapping[str, Any]) -> dict[str, Any]:
    return _floats(value, value)
