"""Which replay made a result: an object in the output record, headers on a dead letter.

A record that was labelled again keeps its id. Of several results with one id the one of the
replay that began last holds; one of the first run yields to any replay's (``supersedes``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from worker.contract.errors import RecordRefused
from worker.contract.marks import Doc, Pattern
from worker.contract.timestamps import parse_rfc3339

REPLAY_ID = r"^[A-Za-z0-9._-]{1,100}$"
"""What the id of a replay looks like: it is also part of a consumer group's name."""

_NAMES = {"id": "clerk.replay.id", "at": "clerk.replay.at", "reason": "clerk.replay.reason"}

REPLAY_HEADERS = frozenset(_NAMES.values())
"""Headers that a dead letter of a replay has beside the others."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The replay that a result was made in; absent from results of the first run."""

    id: Annotated[str, Pattern(REPLAY_ID), Doc("Name of the replay.")]
    at: Annotated[
        str,
        Doc("When it began, RFC 3339 in UTC: of results with one id, the latest holds."),
    ]
    reason: Annotated[str, Doc("Why, in the words of whoever started it.")]

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers that a dead letter of a replay has beside the others."""
        return tuple((name, getattr(self, field).encode()) for field, name in _NAMES.items())


def supersedes(new: Replay | None, old: Replay | None) -> bool:
    """Tell whether a result made in ``new`` takes the place of one with the same id made in
    ``old``; None is the first run. Within one replay there is one result for each id."""
    return _rank(new) > _rank(old)


def read_replay(headers: Sequence[tuple[str, bytes | None]]) -> Replay | None:
    """Return the replay that a dead letter was made in, by its headers; None for the first run.

    Raises RecordRefused.
    """
    found = {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
    if _NAMES["id"] not in found:
        return None
    replay = Replay(**{field: found.get(name, "") for field, name in _NAMES.items()})
    try:
        check_replay(replay)
    except ValueError as error:
        raise RecordRefused("the dead letter", str(error)) from None
    return replay


def check_replay(replay: Replay) -> None:
    """Raise ValueError unless its id is one and its time is a time."""
    if re.fullmatch(REPLAY_ID, replay.id) is None:
        raise ValueError(f"replay.id does not match {REPLAY_ID}")
    try:
        parse_rfc3339(replay.at)
    except ValueError as error:
        raise ValueError(f"replay.at: {error}") from None


def _rank(replay: Replay | None) -> tuple[float, str]:
    return (0.0, "") if replay is None else (parse_rfc3339(replay.at).timestamp(), replay.id)
