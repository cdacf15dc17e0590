"""Convert frozen dataclasses to JSON and back; errors name the place of each difference.

Supports dataclasses, tuples, mappings with text keys, optional values, literals, numbers and text,
with a ``Range`` or ``Pattern``. A missing or mistyped key is an error; an unknown key is an error
unless ``skip_unknown`` is given.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any

# Marks in a field's annotation: ``Annotated[float, Range(0, 1), Doc("...")]``. ``decode`` checks
# ranges and patterns; the JSON Schemas (worker.records.schemas) show all three. Pydantic, which
# makes the schemas, finds its hook by the name alone: the contract imports no third-party code.


@dataclass(frozen=True, slots=True)
class Doc:
    """The field's description in the JSON Schema."""

    text: str

    def __get_pydantic_json_schema__(self, core: Any, make: Callable[[Any], Any]) -> Any:
        """Return the field's schema with what this mark adds: pydantic calls this."""
        return {**make(core), "description": self.text}


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest allowed value, both included."""

    least: float
    most: float

    def __get_pydantic_json_schema__(self, core: Any, make: Callable[[Any], Any]) -> Any:
        """See ``Doc``."""
        return {**make(core), "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that the whole text must match, anchored with ``^`` and ``$``."""

    regex: str

    def __get_pydantic_json_schema__(self, core: Any, make: Callable[[Any], Any]) -> Any:
        """See ``Doc``."""
        return {**make(core), "pattern": self.regex}


Probability = Annotated[float, Range(0, 1)]


LEAVE_OUT_EMPTY: Mapping[str, Any] = {"leave_out_empty": True}
"""Field metadata: ``encode`` leaves the key out when the value is None or an empty collection, so
that a new optional field does not change the JSON, and the digest, of records without it."""


def encode(value: Any) -> Any:
    """Return the JSON form of a record."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encode(inner)
            for field in _constructor_fields(type(value))
            if not _is_left_out(field, inner := getattr(value, field.name))
        }
    if isinstance(value, Mapping):
        return {str(key): encode(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encode(inner) for inner in value]
    return value


def _is_left_out(field: Field[Any], value: Any) -> bool:
    return "leave_out_empty" in field.metadata and (value is None or value in ((), {}))


def decode(kind: Any, value: Any, where: str, *, skip_unknown: bool = False) -> Any:
    """Build ``kind``, a type annotation, from parsed JSON.

    ``where`` is the value's place, for error messages. They never quote the value, which may be a
    customer's text. Raises ValueError (TaxonomyError inside a taxonomy).
    """
    if kind is Any:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return _decode_dataclass(kind, value, where, skip_unknown=skip_unknown)
    if typing.get_origin(kind) is None:
        return _decode_scalar(kind, value, where)
    return _decode_generic(kind, value, where, skip_unknown=skip_unknown)


def _decode_generic(kind: Any, value: Any, where: str, *, skip_unknown: bool) -> Any:
    def inside(inner_kind: Any, inner: Any, place: str) -> Any:
        return decode(inner_kind, inner, f"{where}{place}", skip_unknown=skip_unknown)

    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _marked(inside(arguments[0], value, ""), kind.__metadata__, where)
    if origin in {types.UnionType, typing.Union}:
        # The contract has no other unions than "or None": JSON could not tell them apart.
        some = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else inside(some, value, "")
    if origin is tuple and isinstance(value, list):
        return tuple(inside(arguments[0], inner, f"[{i}]") for i, inner in enumerate(value))
    if origin in {Mapping, dict} and isinstance(value, dict):
        return {key: inside(arguments[1], inner, f".{key}") for key, inner in value.items()}
    if origin is typing.Literal:
        for argument in arguments:
            if value == argument and type(value) is type(argument):  # True == 1 in Python
                return value
    wanted = {tuple: "a list", Mapping: "an object", dict: "an object"}
    raise ValueError(f"{where} must be {wanted.get(origin, f'one of {list(arguments)}')}")


def _decode_dataclass(kind: Any, value: Any, where: str, *, skip_unknown: bool) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object")
    known = {field.name: field for field in _constructor_fields(kind)}
    unknown = sorted(set(value) - set(known))
    # Files that we write are read strictly, so that a misspelt key is found. Records on topics may
    # come from a newer version, so their readers skip unknown keys.
    if unknown and not skip_unknown:
        raise ValueError(f"{where} has unknown keys {unknown}")
    missing = [
        name
        for name, field in known.items()
        if name not in value and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {missing}")
    hints = _type_hints(kind)
    built = {
        name: decode(hints[name], value[name], f"{where}.{name}", skip_unknown=skip_unknown)
        for name in known
        if name in value
    }
    return kind(**built)


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{where} must be {kind.__name__}, not {type(value).__name__}")


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{where} is too large a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{where} is {number}")
    return number


def _marked(value: Any, marks: tuple[Any, ...], where: str) -> Any:
    for mark in marks:
        if isinstance(mark, Range) and not mark.least <= value <= mark.most:
            raise ValueError(f"{where} is {value}; it must be from {mark.least} to {mark.most}")
        if isinstance(mark, Pattern) and re.fullmatch(mark.regex, value) is None:
            raise ValueError(f"{where} does not match {mark.regex}")
    return value


@cache
def _constructor_fields(kind: type[Any]) -> tuple[Field[Any], ...]:
    """The fields in the JSON: those that the constructor does not take are caches next to it."""
    return tuple(field for field in fields(kind) if field.init)


@cache
def _type_hints(kind: type[Any]) -> dict[str, Any]:
    """Annotations with their marks, cached: evaluating them takes longer than reading a record."""
    return typing.get_type_hints(kind, include_extras=True)
