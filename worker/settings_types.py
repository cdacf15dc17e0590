"""What sections of settings are made of, and types with bounds or several ways of writing."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from worker.contract.settings_tree import flatten

Property = str | int | float | bool
Seconds = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Properties = Annotated[dict[str, Property], BeforeValidator(flatten)]


class Section(BaseModel):
    """A frozen section of the settings in which unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def as_list(value: Any) -> Any:
    """Take a single name for a list of one; in the environment a list is JSON."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.startswith("[") else [value]


TopicList = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], NoDecode, BeforeValidator(as_list)
]
