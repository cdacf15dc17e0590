"""The trainer's files: tasks for reviewers, advice about the labels, proposals to publish."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from desk.core.items import Origin, is_drawn
from desk.core.texts import band_keys, message_text, storable, storable_json
from desk.errors import Refused
from desk.service.context import Desk, require, require_unless_operator
from desk.service.reviewing import MAX_NOTE_CHARS
from desk.service.uploads import MAX_BATCH_NAME
from desk.service.viewing import SHOWN_CHARS, seen_how, text_for
from desk.store import batches, people, proposals
from desk.store.batches import Batch, Like, NewTask
from desk.store.database import Tx
from desk.store.items import NewItem
from desk.store.proposals import Shown, StoredAdvice, StoredProposal
from desk.store.types import Person
from worker.contract.codec import decode, encode
from worker.contract.digest import sha256_json
from worker.contract.errors import RecordRefused
from worker.contract.exchange import (
    Advice,
    Finding,
    Proposal,
    ProposalDecision,
    Purpose,
    Task,
    parse_tasks,
)
from worker.contract.records.identity import read_json
from worker.contract.text import message_sha256
from worker.contract.timestamps import rfc3339_from_ms

OPERATOR = "operator"
"""The pseudonym for decisions on the command line."""

ORIGINS: Mapping[Purpose, Origin] = {"check": "check", "audit": "holdout", "learn": "learn"}
"""The origin of a task's item, by the task's purpose."""

AT_ONCE = 100
"""Tasks per transaction: on SQLite reviewers wait for it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many tasks of a file were new and known, and their batches."""

    new: int
    known: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Tasks of one batch that are loaded in one transaction. ``last``: they complete it."""

    tasks: Sequence[Task]
    last: bool


def load_task_file(
    desk: Desk, file: str | Iterable[str], name: str, person: Person | None = None
) -> Loaded:
    """Load the tasks of a file: all of them, or none if a line is wrong.

    ``file`` is its text or its lines, so that a large file is not held twice; ``name`` is for
    errors. Loading a file again adds what an interrupted load left out. Raises Refused with the
    line at fault, NotAllowed.
    """
    require_unless_operator(person, "owner")
    return load_tasks(desk, read_tasks(desk, file, name), person)


def read_tasks(desk: Desk, file: str | Iterable[str], name: str) -> Sequence[Task]:
    """Return the tasks of a file, checked. Raises Refused with the line at fault."""
    try:
        # Not splitlines(): JSON may hold U+2028 within a text, and it would break the line there.
        tasks = parse_tasks(file.split("\n") if isinstance(file, str) else file, name)
    except RecordRefused as error:
        raise Refused(f"{error}: make the file again, nothing of it was loaded") from None
    if not tasks:
        raise Refused(f"{name}: there is no task in it")
    for line, task in tasks.items():
        _check_labels(desk, task, f"{name}:{line}")
    return tuple(tasks.values())


def load_tasks(desk: Desk, tasks: Collection[Task], person: Person | None = None) -> Loaded:
    """Load checked tasks, each once by its id. Raises NotAllowed."""
    require_unless_operator(person, "owner")
    by = person.id if person is not None else None
    loaded = [load_part(desk, part, by) for part in parts_of(tasks)]
    new = sum(added for _, added in loaded)
    return Loaded(new, len(tasks) - new, tuple(dict.fromkeys(batch_id for batch_id, _ in loaded)))


def parts_of(tasks: Iterable[Task]) -> list[Part]:
    """Divide tasks into parts of ``AT_ONCE``, batch by batch."""
    by_batch: dict[tuple[str | None, str, Purpose], list[Task]] = {}
    for task in tasks:
        by_batch.setdefault((task.dataset, task.batch, task.purpose), []).append(task)
    return [
        Part(some[begin : begin + AT_ONCE], begin + AT_ONCE >= len(some))
        for some in by_batch.values()
        for begin in range(0, len(some), AT_ONCE)
    ]


def load_part(
    desk: Desk, part: Part, by: int | None, then: Callable[[Tx], None] = lambda _: None
) -> tuple[int, int]:
    """Load a part in one transaction, in which ``then`` is called last; return the batch's id and
    how many tasks were new. ``by`` is a person's id, None for the command line."""
    first = part.tasks[0]
    # The same file loaded again is the same batch, so an interrupted load is completed.
    key = sha256_json(["batch", first.dataset, first.batch, first.purpose])
    now_ms = desk.clock()
    made = [new_task(desk, task, key, now_ms) for task in part.tasks]
    with desk.database.write() as tx:
        batch_id = batches.begin(
            tx,
            key,
            dataset=first.dataset,
            name=storable(first.batch),
            purpose=first.purpose,
            person_id=by,
            now_ms=now_ms,
        )
        added = batches.add(tx, batch_id, made, now_ms)
        if part.last:
            batches.finish(tx, batch_id, now_ms)
            detail = {"batch": batch_id, "purpose": first.purpose}
            people.log(tx, now_ms, by, "tasks.loaded", detail=detail)
        then(tx)
    return batch_id, added


def all_progress(desk: Desk) -> list[Batch]:
    """Return all batches with their progress, newest first."""
    with desk.database.read() as tx:
        return batches.everything(tx)


def new_task(desk: Desk, task: Task, key: str, now_ms: int) -> NewTask:
    """Return a task as the store takes it. ``key`` is the batch's."""
    text = message_text(task.text)
    label = task.suggested or task.label or ""
    blind = task.purpose == "audit"
    share = desk.policy.audit_double_share if blind else desk.policy.double_share
    item = NewItem(
        result_id=task.id,
        source_topic="",  # not from Kafka, so its decisions are not written there
        source_partition=0,
        source_offset=0,
        source_ms=None,
        record_key=None,
        message_id=storable(task.message_id),
        label=label,
        confidence=_sureness(task),
        scores=task.scores or {},
        off_label_mass=None,
        reasons=(),
        truncated=False,
        adapter_name="",
        adapter_digest=key,  # gives each batch its own facets
        taxonomy_digest=desk.project.taxonomy_digest,
        labelled_ms=now_ms,
        origin=ORIGINS[task.purpose],
        sample_share=None,
        # By the task's id, so that loading a file again draws the same tasks.
        opinions_wanted=2 if is_drawn("double", desk.project.installation, task.id, share) else 1,
    )
    return NewTask(
        item=item,
        text=text,
        message_sha256=task.message_sha256,
        band_keys=band_keys(text),
        given=task.label,
        given_source=task.label_source,
        suggested=task.suggested,
        confidence=task.confidence,
        codes=[storable(code) for code in task.reasons],
        guideline=task.guideline,
        similar=[
            Like(like.label, storable(like.text), like.message_id, message_sha256(like.text))
            for like in task.neighbours
        ],
    )


def _sureness(task: Task) -> float:
    """Return the key of the order by confidence: the lowest comes first."""
    if task.confidence is None:
        return 1.0
    return 1 - task.confidence if task.purpose == "check" else task.confidence


def _check_labels(desk: Desk, task: Task, where: str) -> None:
    """Raise Refused for a label that the desk's taxonomy does not have. The error does not repeat
    it, because it may be any text."""
    given = (task.label, task.suggested, *(task.scores or ()))
    if any(label is not None and label not in desk.taxonomy.names for label in given):
        taxonomy = desk.taxonomy
        raise Refused(
            f"{where}: a label is none of {taxonomy.name} {taxonomy.version}, the taxonomy of this "
            "desk: make the tasks from a dataset of that taxonomy, or go over to the other one "
            "(clerk-desk taxonomy); nothing of the file was loaded"
        )


@dataclass(frozen=True, slots=True)
class Given:
    """Advice without its messages; ``counts`` are the numbers of messages by finding."""

    id: int
    advice: Advice
    counts: Sequence[int]
    loaded_ms: int


def load_advice(desk: Desk, text: str, name: str, person: Person | None = None) -> tuple[int, bool]:
    """Store the advice of a file (its text and its name); return its id and whether it is new.

    Its messages are stored apart, so that they can be deleted. Raises Refused, NotAllowed.
    """
    require_unless_operator(person, "owner")
    try:
        advice = read_json(Advice, text, name)
    except RecordRefused as error:
        raise Refused(f"{error}: make it again, it was not loaded") from None
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
        # The digest is of the whole file: two may differ only in their messages.
        id_, is_new = proposals.add_advice(
            tx, sha256_json(encode(advice)), body, found, person_id=by, now_ms=now_ms
        )
        if is_new:
            people.log(tx, now_ms, by, "advice.loaded", detail={"advice": id_})
    return id_, is_new


def all_advice(desk: Desk) -> list[Given]:
    """Return advice, the newest first."""
    with desk.database.read() as tx:
        return [_given(kept) for kept in proposals.newest_advice(tx)]


def messages(
    desk: Desk, person: Person, advice_id: int, number: int
) -> tuple[Given, Finding, Sequence[Shown]]:
    """Return a finding (counted from 0) with its messages; the log says who saw them. Raises
    Refused if there is none, NotAllowed."""
    require(person, "owner")
    with desk.database.write() as tx:
        given, finding = _finding(proposals.get_advice(tx, advice_id), number)
        shown = proposals.messages(tx, advice_id, number)
        detail = {"advice": advice_id, "finding": number, "messages": len(shown)}
        how = seen_how(desk, person)
        people.log(tx, desk.clock(), person.id, "advice.seen", detail={**detail, **how})
    return given, finding, [_as_seen(desk, person, each) for each in shown]


def ask(desk: Desk, person: Person | None, advice_id: int, number: int) -> Loaded:
    """Make a batch of the messages of a finding, or return the one that was made before.

    Messages whose text is not here are left out. Raises Refused if none is left, or if there is no
    such finding; NotAllowed."""
    require_unless_operator(person, "owner")
    with desk.database.read() as tx:
        given, _ = _finding(proposals.get_advice(tx, advice_id), number)
        shown = proposals.messages(tx, advice_id, number)
    # By the task's id: a finding may name two copies of a message.
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
    return replace(message, text=text_for(desk, person, message.text, SHOWN_CHARS))


def _task(desk: Desk, advice: Advice, advice_id: int, number: int, message: Shown) -> Task:
    finding = advice.findings[number]
    if message.text is None:
        raise ValueError("its text is not here")
    sha256 = message_sha256(message.text)
    return Task(
        schema="tasks/1",
        # Asked because of this finding, even if reviewers have decided a check of this message
        # before: it is another question than whether the dataset's label is right.
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
    raise Refused(
        "there is no such finding: clerk-desk advice list shows those of the newest advice"
    )


def _given(kept: StoredAdvice) -> Given:
    body: Mapping[str, object] = kept.body
    # The stored body has "counts" in addition.
    advice = decode(Advice, body, "the advice", skip_unknown=True)
    counts = body["counts"]
    assert isinstance(counts, list)
    return Given(kept.id, advice, counts, kept.loaded_ms)


@dataclass(frozen=True, slots=True)
class ProposalStatus:
    """A proposal and its decision, None until there is one."""

    proposal: Proposal
    loaded_ms: int
    decision: ProposalDecision | None


def load_proposal(
    desk: Desk, text: str, name: str, person: Person | None = None
) -> tuple[str, bool]:
    """Store the proposal of a file (its text and its name); return its id and whether it is new.
    Raises Refused, NotAllowed."""
    require_unless_operator(person, "owner")
    try:
        proposal = read_json(Proposal, text, name)
    except RecordRefused as error:
        raise Refused(f"{error}: make it again, it was not loaded") from None
    now_ms = desk.clock()
    by = person.id if person is not None else None
    with desk.database.write() as tx:
        body = storable_json(encode(proposal))
        is_new = proposals.add_proposal(tx, proposal.id, body, person_id=by, now_ms=now_ms)
        if is_new:
            people.log(tx, now_ms, by, "proposal.loaded", detail={"proposal": proposal.id})
    return proposal.id, is_new


def all_proposals(desk: Desk) -> list[ProposalStatus]:
    """Return all proposals, newest first."""
    with desk.database.read() as tx:
        return [_status(kept) for kept in proposals.all_proposals(tx)]


def decide_proposal(
    desk: Desk, proposal_id: str, *, publish: bool, reason: str = "", person: Person | None = None
) -> ProposalStatus:
    """Decide whether the proposed adapter becomes a canary. Repeating the decision is allowed.

    ``person`` is None for the command line. Raises Refused if there is no such proposal, if the
    gate refused it, or if it has the other answer already; NotAllowed.
    """
    require_unless_operator(person, "owner")
    if len(reason) > MAX_NOTE_CHARS:
        raise Refused(f"a note has {MAX_NOTE_CHARS} characters at most")
    now_ms = desk.clock()
    by = person.id if person is not None else None
    with desk.database.write() as tx:
        found = proposals.find_proposal(tx, proposal_id)
        if found is None:
            raise Refused("there is no such proposal at this desk: load its file first")
        if publish and _status(found).proposal.verdict == "refused":
            raise Refused("the gate refuses this adapter: it cannot be published from here")
        first = proposals.decide_proposal(
            tx,
            proposal_id,
            publish=publish,
            reason=storable(reason),
            person_id=by,
            now_ms=now_ms,
        )
        now = proposals.find_proposal(tx, proposal_id)
        assert now is not None
        if not first and now.publish != publish:
            raise Refused("this proposal has the other answer already, which cannot be changed")
        if first:
            detail = {"proposal": proposal_id, "publish": publish}
            people.log(tx, now_ms, by, "proposal.decided", detail=detail)
    return _status(now)


def _status(kept: StoredProposal) -> ProposalStatus:
    proposal = decode(Proposal, kept.body, "the proposal", skip_unknown=True)
    if kept.publish is None or kept.decided_ms is None:
        return ProposalStatus(proposal, kept.loaded_ms, None)
    decided_at = rfc3339_from_ms(kept.decided_ms)
    assert decided_at is not None
    decision = ProposalDecision(
        schema="proposal-decision/1",
        proposal=proposal.id,
        adapter=proposal.adapter.digest,
        publish=kept.publish,
        decided_by=kept.by or OPERATOR,
        decided_at=decided_at,
        reason=kept.reason,
    )
    return ProposalStatus(proposal, kept.loaded_ms, decision)
