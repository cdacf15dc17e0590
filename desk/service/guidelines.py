"""Guidelines: how labels are to be given, in the team's own words."""

from __future__ import annotations

from desk.core.guideline import section_for
from desk.errors import Refused
from desk.service.context import Desk, require
from desk.store import guidelines, people
from desk.store.guidelines import Guideline
from desk.store.types import Person

__all__ = ["Guideline", "current", "for_label", "save", "versions"]

MAX_CHARS = 200_000


def current(desk: Desk) -> Guideline | None:
    """Return the newest version, None where there is none."""
    with desk.database.read() as tx:
        return guidelines.current(tx)


def for_label(guideline: Guideline | None, label: str) -> str:
    """Return what a version says under the label's heading, "" where it does not."""
    return "" if guideline is None else section_for(guideline.body, label)


def versions(desk: Desk) -> list[Guideline]:
    """Return all versions, newest first."""
    with desk.database.read() as tx:
        return guidelines.versions(tx)


def save(desk: Desk, person: Person, body: str, note: str, *, based_on: int | None) -> Guideline:
    """Keep a new version. ``based_on`` is the version it was written from, None for the first.

    Raises NotAllowed; Refused where somebody saved another one meanwhile.
    """
    require(person, "adjudicator")
    if len(body) > MAX_CHARS:
        raise Refused(f"a guideline has {MAX_CHARS} characters at most")
    now_ms = desk.clock()
    with desk.database.write() as tx:
        newest = guidelines.current(tx)
        if (newest.version if newest is not None else None) != based_on:
            raise Refused("somebody has saved another version meanwhile: look at theirs first")
        saved = guidelines.save(tx, body, note, person.id, now_ms)
        people.log(tx, now_ms, person.id, "guideline.saved", detail={"version": saved.version})
    return saved
