"""The part of a guideline that is about one label: pages show it beside the message."""

from __future__ import annotations

import re

_HEADING = re.compile(r"^#{1,6}\s+(\S.*)$")


def heading_of(line: str) -> str | None:
    """Return what a line says where it is a heading of Markdown, None where it is none."""
    found = _HEADING.match(line)
    return found[1].rstrip().rstrip("#").rstrip() if found else None


def section_for(body: str, label: str) -> str:
    """Return the text under the heading that is the label's name, "" where there is none.

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


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
