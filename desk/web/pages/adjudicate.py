"""Disputes: what people said, and the last word."""

from __future__ import annotations

from starlette.responses import Response

from desk.errors import Refused
from desk.service import adjudicating, guidelines
from desk.web.queue_choice import keyed_labels
from desk.web.strings import t
from desk.web.visit import Page, Visit, redirect


def show(visit: Visit) -> Response:
    """The oldest dispute."""
    dispute = adjudicating.next_dispute(visit.desk, visit.who)
    if dispute is None:
        return visit.page("nothing.html", what="adjudicate", fields={})
    return visit.page(
        "adjudicate.html",
        dispute=dispute,
        task=dispute.task,
        keyed=keyed_labels(visit.desk.taxonomy),
        guideline=guidelines.current(visit.desk),
        guideline_label="",
        guideline_part="",
        near=(),
        fields={},
    )


def act(visit: Visit) -> Response:
    """End the dispute on screen."""
    kind, _, label = visit.form.get("action", "").partition(":")
    if kind not in {"label", "none"}:
        raise Refused(t("error.action"))
    adjudicating.adjudicate(
        visit.desk,
        visit.who,
        visit.number("item"),
        label if kind == "label" else None,
        request_id=visit.form.get("request", ""),
        note=visit.form.get("note", "").strip(),
        seconds=visit.seconds(),
    )
    return redirect("/adjudicate")


PAGES = (
    Page("/adjudicate", show, "adjudicator", link="nav.adjudicate", order=30),
    Page("/adjudicate", act, "adjudicator", "POST"),
)
