"""Files of the trainer, for owners: loading one, advice about the labels, the next adapter."""

from __future__ import annotations

import json

from starlette.responses import Response

from desk.errors import Refused
from desk.service import circle
from desk.web.strings import t
from desk.web.visit import Page, Visit, number, redirect
from worker.contract.exchange import CHANGES


def show_load(visit: Visit) -> Response:
    """The form."""
    return visit.page("load.html")


def load_file(visit: Visit) -> Response:
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
        loaded, _ = circle.load_advice(visit.desk, text, name, visit.who)
        return redirect("/advice", advice=str(loaded))
    if kind == "proposal":
        id_, _ = circle.load_proposal(visit.desk, text, name, visit.who)
        return redirect("/proposals", proposal=id_)
    circle.load_task_file(visit.desk, text, name, visit.who)
    return redirect("/")


def _kind(text: str) -> str:
    """Return what a file says it is; one that says nothing is read as tasks, and refused there."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return "tasks"
    schema = whole.get("schema") if isinstance(whole, dict) else ""
    return str(schema).partition("/")[0]


def show_advice(visit: Visit) -> Response:
    """The findings of the newest advice, or of the one that is asked for."""
    everything = circle.all_advice(visit.desk)
    wanted = number(visit.query.get("advice", ""))
    chosen = next((each for each in everything if each.id == wanted), None)
    given = chosen or (everything[0] if everything else None)
    others = [each for each in everything if each is not given]
    return visit.page("advice.html", given=given, others=others)


def show_messages(visit: Visit) -> Response:
    """The messages that a finding rests on."""
    advice_id, place = (number(visit.query.get(name, "")) for name in ("advice", "finding"))
    given, finding, messages = circle.messages(visit.desk, visit.who, advice_id, place - 1)
    return visit.page(
        "advice_messages.html",
        given=given,
        finding=finding,
        place=place,
        messages=messages,
        here=sum(each.text is not None for each in messages),
        several=len({each.part for each in messages}) > 1,
    )


def ask(visit: Visit) -> Response:
    """Ask people about the messages of a finding, and go to their queue."""
    if visit.form.get("action") != "ask":
        raise Refused(t("error.action"))
    advice_id, place = visit.number("advice"), visit.number("finding")
    asked = circle.ask(visit.desk, visit.who, advice_id, place - 1)
    return redirect("/review", batch=str(asked.batches[0]))


def show_proposals(visit: Visit) -> Response:
    """The proposal that is asked for, else the newest that waits, else the newest."""
    everything = circle.all_proposals(visit.desk)
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


def decide_proposal(visit: Visit) -> Response:
    """Keep the owner's answer."""
    action = visit.form.get("action", "")
    if action not in {"yes", "no"}:
        raise Refused(t("error.action"))
    proposal_id = visit.form.get("proposal", "")
    circle.decide_proposal(
        visit.desk,
        proposal_id,
        publish=action == "yes",
        reason=visit.form.get("note", "").strip(),
        person=visit.who,
    )
    return redirect("/proposals", proposal=proposal_id)


PAGES = (
    Page("/load", show_load, "owner"),
    Page("/load", load_file, "owner", "POST", takes_file=True),
    Page("/advice", show_advice, "owner", link="nav.advice", order=76),
    Page("/advice/messages", show_messages, "owner"),
    Page("/advice/messages", ask, "owner", "POST"),
    Page("/proposals", show_proposals, "owner", link="nav.proposals", order=77),
    Page("/proposals", decide_proposal, "owner", "POST"),
)
