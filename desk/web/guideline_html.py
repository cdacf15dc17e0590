"""Guidelines as blocks that a template shows: headings, lists and paragraphs of Markdown.

Nothing else of Markdown is taken for more than text, so that nothing of it has to be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from desk.core.guideline import heading_of

_ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,3}[.)])\s+(.+)$")


@dataclass(slots=True)
class Block:
    """A heading (one line), a paragraph (its lines) or a list (an item a line)."""

    kind: Literal["heading", "paragraph", "list"]
    lines: list[str] = field(default_factory=list)


def blocks(body: str) -> Sequence[Block]:
    """Return the blocks of a guideline."""
    found: list[Block] = []
    is_open = False
    for line in body.splitlines():
        heading, item = heading_of(line), _ITEM.match(line)
        if heading is not None:
            found.append(Block("heading", [heading]))
            is_open = False
        elif item:
            if not (is_open and found[-1].kind == "list"):
                found.append(Block("list"))
            found[-1].lines.append(item[1])
            is_open = True
        elif line.strip():
            if is_open and found[-1].kind == "list":
                found[-1].lines[-1] += f" {line.strip()}"
                continue
            if not is_open:
                found.append(Block("paragraph"))
            found[-1].lines.append(line.strip())
            is_open = True
        else:
            is_open = False
    return found
