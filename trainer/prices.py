"""A file of prices of machines, each with its source and the day on which it was read.

No price is built in: the user names a file, and each price that is used is shown with
its day. ``config/prices.toml`` is such a file.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.artifacts.files import read_toml
from trainer.errors import BadInput

STALE_DAYS = 180
"""An older price is called stale: list prices of GPUs change several times a year."""

_Text = Annotated[str, Field(min_length=1)]


class MachinePrice(BaseModel):
    """What a machine costs for an hour. ``holds`` says what it has, ``where`` the vendor's region
    and terms; ``source`` is an address, read on ``date``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: _Text
    holds: _Text
    where: _Text
    currency: _Text
    per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    source: Annotated[str, Field(pattern="^https://")]
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
        try:
            price = MachinePrice(**row)
        except ValidationError as error:
            wrong += [f"{where}: {each['loc'][0]}: {each['msg']}" for each in error.errors()]
            continue
        if price.date > today:
            wrong.append(f"{where}: date is {price.date}, which is in the future")
        if price.name in found:
            wrong.append(f"{where}: is there twice")
        found[price.name] = price
    if wrong:
        raise BadInput(*wrong)
    return found
