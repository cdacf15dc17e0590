"""A file of prices of machines, each with its source and the day on which it was read.

No price is built in: the user names a file, and each price that is used is shown with
its day. ``config/prices.toml`` is such a file.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.artifacts.files import read_toml
from trainer.errors import BadInput

STALE_DAYS = 180
"""An older price is called stale: list prices of GPUs change several times a year."""

_TEXTS = ("name", "holds", "where", "currency", "source")
_FIELDS = (*_TEXTS, "per_hour", "date")


@dataclass(frozen=True, slots=True)
class MachinePrice:
    """What a machine costs for an hour. ``holds`` says what it has, ``where`` the vendor's region
    and terms; ``source`` is an address, read on ``date``."""

    name: str
    holds: str
    where: str
    currency: str
    per_hour: float
    source: str
    date: dt.date

    def age_days(self, today: dt.date) -> int:
        """Return how many days ago it was read."""
        return (today - self.date).days


def read_prices(path: Path, today: dt.date) -> dict[str, MachinePrice]:
    """Return the prices of a file by name. Raises BadInput that lists all problems."""
    data = read_toml(path, "config/prices.toml is such a file")
    rows = data.pop("machine", None)
    wrong = [f"{path}: there is no key {key!r}: a price is a table [[machine]]" for key in data]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(*wrong, f"{path}: has no table [[machine]]")
    found: dict[str, MachinePrice] = {}
    for number, row in enumerate(rows, 1):
        where = f"{path}: machine {row.get('name') or number}"
        problems = [f"{where}: {problem}" for problem in _problems(row, today)]
        wrong += problems
        if problems:
            continue
        if row["name"] in found:
            wrong.append(f"{where}: is there twice")
        found[row["name"]] = MachinePrice(**row | {"per_hour": float(row["per_hour"])})
    if wrong:
        raise BadInput(*wrong)
    return found


def _problems(row: Mapping[str, Any], today: dt.date) -> list[str]:
    wrong = [f"has no {name}" for name in _FIELDS if name not in row]
    wrong += [f"there is no field {name!r}" for name in row if name not in _FIELDS]
    if wrong:
        return wrong
    wrong = [
        f"{name} must be text" for name in _TEXTS if not (isinstance(row[name], str) and row[name])
    ]
    price, read = row["per_hour"], row["date"]
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < math.inf:
        wrong.append(f"per_hour is {price!r}; it must be a number above 0")
    # A datetime is a date too, and compares with none.
    if type(read) is not dt.date:
        wrong.append(f"date is {read!r}; write the day it was read, such as 2026-11-09")
    elif read > today:
        wrong.append(f"date is {read}, which is in the future")
    if not str(row["source"]).startswith("https://"):
        wrong.append("source must be an address that begins with https://")
    return wrong
