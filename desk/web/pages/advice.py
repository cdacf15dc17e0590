"""Advice about the labels themselves, its messages, and asking people about them: for owners."""

from __future__ import annotations

from starlette.responses import Response

from desk.errors import Refused
from desk.service import advising
from desk.web.forms import number
from desk.web.strings import t
from desk.web.visit import Page, Visit, redirect


def show(visit: Visit) -> Response:
    """The findings of the newest advice, or of the one that is asked for."""
    everything = advising.everything(visit.desk)
    wanted = number(visit.query.get("advice", ""))
    chosen = next((each for each in everything if each.id == wanted), None)
    given = chosen or (everything[0] if everything else None)
    others = [each for each in everything if each is not given]
    return visit.page("advice.html", given=given, others=others)


def show_messages(visit: Visit) -> Response:
    """The messages that a finding rests on."""
    advice_id, place = (number(visit.query.get(name, "")) for name in ("advice", "finding"))
    given, finding, messages = advising.messages(visit.desk, visit.who, advice_id, place - 1)
    return visit.page(
        "advice_messages.html",
        given=given,
        finding=finding,
        place=place,
        messages=messages,
        here=sum(each.text is not None for each in messages),
        several=len({each.part for each in messages}) > 1,
    )


def act(visit: Visit) -> Response:
    """Ask people about the messages of a finding, and go to their queue."""
    if visit.form.get("action") != "ask":
        raise Refused(t("error.action"))
    advice_id, place = visit.number("advice"), visit.number("finding")
    asked = advising.ask(visit.desk, visit.who, advice_id, place - 1)
    return redirect("/review", batch=str(asked.batches[0]))


PAGES = (
    Page("/advice", show, "owner", link="nav.advice", order=76),
    Page("/advice/messages", show_messages, "owner"),
    Page("/advice/messages", act, "owner", "POST"),
)
