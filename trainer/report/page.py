"""The page as text: templates filled in, escaped. The only file that imports ``jinja2``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.report.section import Section


def render(sections: Sequence[Section], **facts: Any) -> str:
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
