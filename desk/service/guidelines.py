"""Guidelines: the team's rules for giving labels."""

from __future__ import annotations

import re

from desk.errors import Refused
from desk.service.context import Desk, require
from desk.store import people, projects
from desk.store.projects import Guideline
from desk.store.types import Person

MAX_CHARS = 200_000


def current(desk: Desk) -> Guideline | None:
    """Return the newest version, None where there is none."""
    with desk.database.read() as tx:
        return projects.current_guideline(tx)


def versions(desk: Desk) -> list[Guideline]:
    """Return all versions, newest first."""
    with desk.database.read() as tx:
        return projects.guideline_versions(tx)


def save(desk: Desk, person: Person, body: str, note: str, *, based_on: int | None) -> Guideline:
    """Store a new version. ``based_on`` is the version it was written from, None for the first.

    Raises NotAllowed; Refused if somebody saved another one meanwhile.
    """
    require(person, "adjudicator")
    if len(body) > MAX_CHARS:
        raise Refused(f"a guideline has {MAX_CHARS} characters at most")
    now_ms = desk.clock()
    with desk.database.write() as tx:
        # Two who edit at once would otherwise overwrite each other without knowing.
        newest = projects.current_guideline(tx)
        if (newest.version if newest is not None else None) != based_on:
            raise Refused("somebody has saved another version meanwhile: look at theirs first")
        saved = projects.save_guideline(tx, body, note, person.id, now_ms)
        people.log(tx, now_ms, person.id, "guideline.saved", detail={"version": saved.version})
    return saved


def heading_of(line: str) -> str | None:
    """Return the text of a Markdown heading, None for another line."""
    found = _HEADING.match(line)
    if found is None:
        return None
    text = found[1].rstrip()
    # As in CommonMark: closing marks stand behind a blank, so the label "c#" keeps its own.
    opened = text.rstrip("#")
    return opened.rstrip() if opened != opened.rstrip() or not opened else text


def section_for(body: str, label: str) -> str:
    """Return the text under the heading that is the label's name, "" if there is none.

    ``body`` is Markdown; blanks, case and underscores of a heading do not matter.
    """
    found: list[str] = []
    inside = False
    for line in body.splitlines():
        heading = heading_of(line)
        if heading is not None:
            inside = _plain(heading) == _plain(label)
        elif inside:
            found.append(line)
    return "\n".join(found).strip()


# Trailing blanks are stripped by heading_of: a pattern that ends in \s* takes quadratic time on a
# line of blanks.
_HEADING = re.compile(r"^#{1,6}\s+(\S.*)$")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
