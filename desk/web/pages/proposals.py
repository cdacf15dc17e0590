"""The next adapter: what is for and against it, and an owner's answer."""

from __future__ import annotations

from starlette.responses import Response

from desk.errors import Refused
from desk.service import proposing
from desk.web.strings import t
from desk.web.visit import Page, Visit, redirect
from worker.contract.exchange import CHANGES


def show(visit: Visit) -> Response:
    """The proposal that is asked for, else the newest that waits, else the newest."""
    everything = proposing.everything(visit.desk)
    wanted = visit.query.get("proposal", "")
    ordered = sorted(everything, key=lambda each: each.decision is not None)
    chosen = next((each for each in everything if each.proposal.id == wanted), None)
    shown = chosen or (ordered[0] if ordered else None)
    figures = shown.proposal.figures if shown is not None else ()
    bounds = [abs(x) for each in figures for x in (each.low, each.high, each.difference) if x]
    return visit.page(
        "proposals.html",
        shown=shown,
        others=[each for each in everything if each is not shown],
        widest=max(bounds, default=0.01),
        changes=CHANGES,
    )


def act(visit: Visit) -> Response:
    """Keep the owner's answer."""
    action = visit.form.get("action", "")
    if action not in {"yes", "no"}:
        raise Refused(t("error.action"))
    proposal_id = visit.form.get("proposal", "")
    proposing.decide(
        visit.desk,
        proposal_id,
        publish=action == "yes",
        reason=visit.form.get("note", "").strip(),
        person=visit.who,
    )
    return redirect("/proposals", proposal=proposal_id)


PAGES = (
    Page("/proposals", show, "owner", link="nav.proposals", order=77),
    Page("/proposals", act, "owner", "POST"),
)
