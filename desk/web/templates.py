"""The templates, with everything that they may call to show messages, times and figures."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from desk.service.context import may
from desk.service.guidelines import heading_of
from desk.web.shown_text import names, shown_text
from desk.web.strings import t


def age(seconds: float | None) -> str:
    """Return an age in words that fit a column."""
    if seconds is None:
        return "–"
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return f"{max(0, int(seconds))} s"


def moment(ms: int | None) -> str:
    """Return a time (Unix, ms) as UTC."""
    if ms is None:
        return "–"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def percent(share: float, digits: int = 0) -> str:
    """Return a share (0 to 1) in per cent."""
    return f"{100 * share:.{digits}f} %"


def number(value: float) -> str:
    """Return a figure without more places than it has."""
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def chance(p_value: float) -> str:
    """Return how often something happens by chance, in words."""
    if p_value < 0.001:
        return "less than 1 time in 1,000"
    if p_value < 0.1:
        return f"{max(1, round(1000 * p_value))} times in 1,000"
    return f"{round(100 * p_value)} times in 100"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def words(name: str) -> str:
    """Return a label's name as it is read."""
    return name.replace("_", " ")


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


FOLDER = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"


@functools.cache
def environment() -> Environment:
    """Return the templates, all of them compiled, once a process: no page waits for its own.
    Everything is escaped; a value that is missing is an error."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(t=t, static=static_address, blocks=blocks, may=may)
    made.filters.update(
        shown_text=shown_text,
        hidden_names=names,
        age=age,
        moment=moment,
        chance=chance,
        number=number,
        percent=percent,
        points=points,
        words=words,
    )
    for name in made.list_templates():
        made.get_template(name)
    return made


@functools.cache
def static_address(name: str) -> str:
    """Return the address of a static file; it changes with the file, so browsers may keep it."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{digest}/{name}"
