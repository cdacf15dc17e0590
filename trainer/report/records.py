"""What the page is made of: a run folder's records, None where a command has not run; its parts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainer.artifacts.files import PRIVATE
from trainer.facts import Table
from trainer.report.svg import Chart
from worker.contract.digest import write_atomically


@dataclass(frozen=True, slots=True)
class Titled:
    """A block under a heading of its own, or folded away under it."""

    title: str
    block: Block
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """What has a template of its own, and what that shows."""

    template: str
    content: Mapping[str, Any]


Block = str | Table | Chart | Sequence[Chart] | Sequence[tuple[str, str]] | Titled | Drawn
"""A part of a section: a paragraph (text, or markup), a table, charts side by side, (name, text)
rows, or what has a template of its own."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section: ``key`` is its anchor. ``missing`` says in a sentence why there is nothing to
    show, and is empty otherwise."""

    key: str
    title: str
    blocks: Sequence[Block] = ()
    missing: str = ""

    @property
    def present(self) -> bool:
        """Whether the section has something to show."""
        return not self.missing


def small(text: str) -> Markup:
    """Return a paragraph for those who want to know it exactly."""
    return Markup('<span class="small">{}</span>').format(text)


@dataclass(frozen=True, slots=True)
class Head:
    """What stands on top of a page. ``facts`` are (what, words, digest) each; ``private`` says
    which texts of customers the page holds, and is empty where it holds none."""

    kind: str
    name: str
    facts: tuple[tuple[str, str, str], ...]
    private: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A written page: its size in bytes, and which sections had something to show."""

    path: Path
    size_bytes: int
    sections: Mapping[str, bool]
    with_texts: bool


def write_page(out: Path, head: Head, sections: Sequence[Section]) -> Report:
    """Write the page: one that holds texts is for its owner and group."""
    page = render_page(head, sections).encode("utf-8", "replace")
    write_atomically(out, page, mode=PRIVATE if head.private else 0o644)
    shown = {section.key: section.present for section in sections}
    return Report(out, len(page), shown, bool(head.private))


def render_page(head: Head, sections: Sequence[Section]) -> str:
    """Return the HTML page.

    Every value is escaped; the charts alone are inserted as they are, and those escape their own
    text. Should either fail, the page's content security policy still lets no script run but the
    one that is named by its digest, and nothing at all be fetched.
    """
    environment = _templates()
    loader = environment.loader
    assert loader is not None
    script = loader.get_source(environment, "script.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        head=head,
        sections=sections,
        script=script,
        script_digest=digest,
        style=loader.get_source(environment, "style.css")[0].strip(),
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("trainer.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
