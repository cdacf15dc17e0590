"""Files of the trainer, brought by an owner: tasks, advice, a proposal."""

from __future__ import annotations

import json

from starlette.responses import Response

from desk.errors import Refused
from desk.service import advising, batches, proposing
from desk.web.strings import t
from desk.web.visit import Page, Visit, redirect


def show(visit: Visit) -> Response:
    """The form."""
    return visit.page("load.html")


def act(visit: Visit) -> Response:
    """Load the file, whichever of the three it is, and go where it is seen."""
    upload = visit.upload
    if upload is None or not upload.content:
        raise Refused(t("load.nothing"))
    name = upload.name[:100] or t("load.file")
    try:
        text = upload.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(t("load.not_utf8", name=name, place=error.start)) from None
    kind = _kind(text)
    if kind == "advice":
        loaded, _ = advising.load(visit.desk, text, name, visit.who)
        return redirect("/advice", advice=str(loaded))
    if kind == "proposal":
        id_, _ = proposing.load(visit.desk, text, name, visit.who)
        return redirect("/proposals", proposal=id_)
    batches.load(visit.desk, text, name, visit.who)
    return redirect("/")


def _kind(text: str) -> str:
    """Return what a file says it is; one that says nothing is read as tasks, and refused there."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return "tasks"
    schema = whole.get("schema") if isinstance(whole, dict) else ""
    return str(schema).partition("/")[0]


PAGES = (
    Page("/load", show, "owner"),
    Page("/load", act, "owner", "POST", takes_file=True),
)
