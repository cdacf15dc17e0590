"""The page: what its sections are, and their templates filled in, escaped. Imports ``jinja2``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.report.records import Input


@dataclass(frozen=True, slots=True)
class Section:
    """One section: ``key`` names its anchor and its template, ``content`` is what that shows.

    ``missing`` says in a sentence why there is nothing to show, and is empty otherwise.
    """

    key: str
    title: str
    content: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""

    @property
    def present(self) -> bool:
        """Whether the section has something to show."""
        return not self.missing


def lacking(key: str, title: str, source: Input, folder: str = "the run folder") -> Section:
    """Return the section of a record that is not there yet."""
    return Section(
        key,
        title,
        missing=f"There is no {source.path} in {folder} yet; {source.command} makes it.",
    )


def render_page(sections: Sequence[Section], **facts: Any) -> str:
    """Return the HTML page.

    Every value is escaped; the charts alone are inserted as they are, and those escape their own
    text. Should either fail, the page's content security policy still lets no script run but the
    one that is named by its digest, and nothing at all be fetched.
    """
    environment = Environment(
        loader=PackageLoader("trainer.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loader = environment.loader
    assert loader is not None
    script = loader.get_source(environment, "script.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        sections=sections,
        script=script,
        script_digest=digest,
        style=loader.get_source(environment, "style.css")[0].strip(),
        **facts,
    )
