"""The templates, with all that they may call."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from desk.service.context import may
from desk.web import shown
from desk.web.guideline_html import blocks
from desk.web.strings import t

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
        pieces=shown.pieces,
        mark_name=shown.mark_name,
        age=shown.age,
        moment=shown.moment,
        chance=shown.chance,
        number=shown.number,
        percent=shown.percent,
        points=shown.points,
        words=shown.words,
    )
    for name in made.list_templates():
        made.get_template(name)
    return made


@functools.cache
def static_address(name: str) -> str:
    """Return the address of a static file; it changes with the file, so browsers may keep it."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{digest}/{name}"
