"""Advice of the trainer about the labels themselves: loaded, shown to an owner, asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from desk.core.storable import storable, storable_json
from desk.errors import Refused
from desk.service.batches import Loaded, load_tasks
from desk.service.context import Desk, require
from desk.service.viewing import seen_how, text_for
from desk.store import advising, people
from desk.store.advising import Shown, StoredAdvice
from desk.store.types import Person
from worker.contract.codec import decode, encode
from worker.contract.digest import sha256_json
from worker.contract.errors import RecordRefused
from worker.contract.exchange import Advice, Finding, Task
from worker.contract.records.identity import read_json
from worker.contract.text import message_sha256

__all__ = ["Given", "Shown", "ask", "everything", "load", "messages"]

MAX_BATCH_NAME = 120


@dataclass(frozen=True, slots=True)
class Given:
    """Advice as it was loaded, without its messages; ``counts`` says how many each finding has."""

    id: int
    advice: Advice
    counts: Sequence[int]
    loaded_ms: int


def load(desk: Desk, text: str, name: str, person: Person | None = None) -> tuple[int, bool]:
    """Keep the advice of a file (its text and its name); return its id and whether it is new.

    Its messages are kept apart, so that they go with their texts. Raises Refused, NotAllowed.
    """
    if person is not None:
        require(person, "owner")
    try:
        advice = read_json(Advice, text, name)
    except RecordRefused as error:
        raise Refused(f"{error}: make it anew, it was not loaded") from None
    found = [
        [
            Shown(
                storable(each.id),
                each.message_sha256,
                each.label,
                each.part,
                storable(each.text) if each.text is not None else None,
            )
            for each in finding.messages
        ]
        for finding in advice.findings
    ]
    without_messages = tuple(replace(finding, messages=()) for finding in advice.findings)
    body = storable_json(encode(replace(advice, findings=without_messages)))
    body["counts"] = [len(each) for each in found]
    now_ms = desk.clock()
    by = person.id if person is not None else None
    with desk.database.write() as tx:
        id_, is_new = advising.add(
            tx, sha256_json(encode(advice)), body, found, person_id=by, now_ms=now_ms
        )
        if is_new:
            people.log(tx, now_ms, by, "advice.loaded", detail={"advice": id_})
    return id_, is_new


def everything(desk: Desk) -> list[Given]:
    """Return the advice that was loaded last, newest first."""
    with desk.database.read() as tx:
        return [_given(kept) for kept in advising.newest(tx)]


def messages(
    desk: Desk, person: Person, advice_id: int, number: int
) -> tuple[Given, Finding, Sequence[Shown]]:
    """Return a finding (counted from 0) with its messages; the log says who saw them. Raises
    Refused where there is none, NotAllowed."""
    require(person, "owner")
    with desk.database.write() as tx:
        given, finding = _finding(advising.get(tx, advice_id), number)
        shown = advising.messages(tx, advice_id, number)
        detail = {"advice": advice_id, "finding": number, "messages": len(shown)}
        how = seen_how(desk, person)
        people.log(tx, desk.clock(), person.id, "advice.seen", detail={**detail, **how})
    return given, finding, [_as_seen(desk, person, each) for each in shown]


def ask(desk: Desk, person: Person | None, advice_id: int, number: int) -> Loaded:
    """Ask people about the messages of a finding, as a batch of its own; asked again, the same
    batch. Messages whose text is not here are left out. Raises Refused where that is all of them,
    or there is no such finding; NotAllowed."""
    if person is not None:
        require(person, "owner")
    with desk.database.read() as tx:
        given, _ = _finding(advising.get(tx, advice_id), number)
        shown = advising.messages(tx, advice_id, number)
    asked: dict[str, Task] = {}
    for each in shown:
        with suppress(ValueError):  # a message whose text is empty, or was purged
            task = _task(desk, given.advice, advice_id, number, each)
            asked.setdefault(task.id, task)
    if not asked:
        raise Refused("none of these messages has its text here: there is nothing to decide on")
    return load_tasks(desk, tuple(asked.values()), person)


def _as_seen(desk: Desk, person: Person, message: Shown) -> Shown:
    if message.text is None:
        return message
    return replace(message, text=text_for(desk, person, message.text))


def _task(desk: Desk, advice: Advice, advice_id: int, number: int, message: Shown) -> Task:
    finding = advice.findings[number]
    if message.text is None:
        raise ValueError("its text is not here")
    sha256 = message_sha256(message.text)
    return Task(
        schema="tasks/1",
        # Another question than whether a label of the dataset is right: it is asked because of
        # this finding, also where people have decided before.
        id=sha256_json(["advice", advice_id, number, sha256])[:32],
        message_id=message.message_id or "",
        message_sha256=sha256,
        text=message.text,
        purpose="check",
        dataset=advice.dataset,
        batch=finding.title[:MAX_BATCH_NAME],
        label=message.label if message.label in desk.taxonomy.names else None,
        reasons=(finding.kind,),
        guideline=advice.guideline,
    )


def _finding(kept: StoredAdvice | None, number: int) -> tuple[Given, Finding]:
    if kept is not None:
        given = _given(kept)
        if 0 <= number < len(given.advice.findings):
            return given, given.advice.findings[number]
    raise Refused("there is no such finding: it may be of advice that was loaded long ago")


def _given(kept: StoredAdvice) -> Given:
    body: Mapping[str, object] = kept.body
    advice = decode(Advice, body, "the advice", skip_unknown=True)
    counts = body["counts"]
    assert isinstance(counts, list)
    return Given(kept.id, advice, counts, kept.loaded_ms)
