"""The part of a guideline that is about one label: pages show it beside the message."""

from __future__ import annotations

import re

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")


def section_for(body: str, label: str) -> str:
    """Return the text under the heading that is the label's name, "" where there is none.

    ``body`` is Markdown; blanks, case and underscores of a heading do not matter.
    """
    found: list[str] = []
    inside = False
    for line in body.splitlines():
        heading = _HEADING.match(line)
        if heading:
            inside = _plain(heading[1]) == _plain(label)
        elif inside:
            found.append(line)
    return "\n".join(found).strip()


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
