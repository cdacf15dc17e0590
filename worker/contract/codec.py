"""Frozen dataclasses to JSON and back, read strictly: unknown, missing and mistyped keys are told.

Covers what the contract's records are made of: dataclasses, tuples, mappings with text keys,
optional values, literals, numbers and text.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from worker.contract.taxonomy import Taxonomy

LEAVE_OUT_NONE: Mapping[str, Any] = {"leave_out_none": True}
"""Metadata of a field that was added later: None is written by leaving the key out, so that
records from before keep their JSON and their digests."""


def encode(value: Any) -> Any:
    """Return the JSON form of a record."""
    if isinstance(value, Taxonomy):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encode(inner)
            for field in _constructor_fields(value)
            if (inner := getattr(value, field.name)) is not None
            or not field.metadata.get("leave_out_none")
        }
    if isinstance(value, Mapping):
        return {str(key): encode(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encode(inner) for inner in value]
    return value


def decode(kind: Any, value: Any, where: str) -> Any:
    """Build ``kind``, a type annotation, from JSON.

    ``where`` is the value's place, for the message. Raises ValueError (TaxonomyError inside a
    taxonomy).
    """
    if kind is Any:
        return value
    if kind is Taxonomy:
        return Taxonomy.from_dict(value)
    if isinstance(kind, type) and is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if typing.get_origin(kind) is None:
        return _decode_scalar(kind, value, where)
    return _decode_generic(kind, value, where)


def _decode_generic(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {types.UnionType, typing.Union}:
        inner = next(one for one in arguments if one is not type(None))
        return None if value is None else decode(inner, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(decode(arguments[0], one, f"{where}[{i}]") for i, one in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: decode(arguments[1], one, f"{where}.{key}") for key, one in value.items()}
    if origin is typing.Literal and value in arguments:
        return value
    wanted = {tuple: "a list", Mapping: "an object"}.get(origin, f"one of {list(arguments)}")
    raise ValueError(f"{where} must be {wanted}")


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object")
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in _constructor_fields(kind)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"{where} has unknown keys {unknown}")
    missing = [
        name
        for name, field in known.items()
        if name not in value and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {missing}")
    built = {name: decode(hints[name], inner, f"{where}.{name}") for name, inner in value.items()}
    return kind(**built)


def _constructor_fields(record: Any) -> list[Field[Any]]:
    """The fields that make up a record: what is kept beside them is not in its JSON."""
    return [field for field in fields(record) if field.init]


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}")
        return float(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{where} must be {kind.__name__}, not {type(value).__name__}")
