"""From rows of the database to the desk's own types."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from desk.store.tables import decisions, items
from desk.store.types import Decided, Item

_T = TypeVar("_T")

ITEM = tuple(items.c[field.name] for field in fields(Item))
"""The columns that make up an ``Item``."""

DECIDED = tuple(decisions.c[field.name] for field in fields(Decided))
"""The columns that make up a ``Decided``."""


def read(kind: type[_T], row: sa.Row[Any]) -> _T:
    """Return a row as ``kind``, whose fields are named as the columns; lists become tuples."""
    named = row._mapping
    values = {
        field.name: tuple(value) if isinstance(value := named[field.name], list) else value
        for field in fields(cast("Any", kind))
    }
    return kind(**values)
