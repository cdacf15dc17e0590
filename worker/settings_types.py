"""The types of settings that are not plain: with bounds, or written in more than one way."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

Property = str | int | float | bool
Seconds = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]


def flatten(value: Any, prefix: str = "") -> Any:
    """Join nested keys with dots: unquoted in TOML, ``fetch.min.bytes = 1`` is nested."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            flat.update(flatten(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


Properties = Annotated[dict[str, Property], BeforeValidator(flatten)]


def as_list(value: Any) -> Any:
    """Take a single name for a list of one; in the environment a list is JSON."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.startswith("[") else [value]


TopicList = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], NoDecode, BeforeValidator(as_list)
]
