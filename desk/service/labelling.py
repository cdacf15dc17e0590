"""Labelling a file by hand: which message comes next, and the file of labelled messages.

A quarter of the file's messages, drawn by their digests, form the random sample. They are asked in
the order of their digests and without any suggestion, so that the labels of those that are decided
measure a model or a teacher without bias. Every fourth message is one of them. The others are asked
in the order of their digests too, until a model suggests labels and another order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from desk.core.items import is_drawn
from desk.core.texts import storable
from desk.errors import Refused
from desk.service.circle import AT_ONCE, new_task
from desk.service.context import Desk
from desk.store import batches
from desk.store.batches import Labelled
from worker.common.tables import Table, TableError, read_table
from worker.contract.digest import sha256_json, write_atomically
from worker.contract.exchange import PRIVATE, Suggestion, Task, task_id
from worker.contract.text import message_sha256, normalize

EVERY = 4
"""One of so many messages is of the random sample."""

LEAST = 20
"""Messages that a label needs to be learnt at all (``clerk-trainer check`` fails below it)."""

_IDS = frozenset({"id", "message_id", "ticket", "ticket_id", "ticketid", "key"})
_MESSAGES = ("message", "text", "body", "content", "description")
_LEAST_CHARS = 10  # a column with less on average holds no messages


@dataclass(frozen=True, slots=True)
class Messages:
    """The different messages of a file. ``notes`` are about what was left out, a sentence each;
    ``id_column`` is None where ids are made from the text."""

    name: str
    found: str
    message_column: str
    id_column: str | None
    rows: int
    tasks: tuple[Task, ...]
    notes: tuple[str, ...]


def read_messages(path: Path, message_column: str | None, id_column: str | None) -> Messages:
    """Read the messages of any table; labels that are there are ignored. Raises Refused."""
    try:
        table = read_table(path, path.name)
        message, id_ = _choose(table, message_column, id_column)
        columns = [message] if id_ is None else [message, id_]
        rows = [cells for _, cells in table.rows(columns)]
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    except TableError as error:
        raise Refused(str(error)) from None
    notes = [each.sentence(table.unit) + ": left out" for each in table.problems if each.broken]
    first: dict[str, tuple[str, str]] = {}
    blank = 0
    for cells in rows:
        text = cells[0].strip()
        if normalize(text):
            first.setdefault(message_sha256(text), (text, cells[1].strip() if id_ else ""))
        else:
            blank += 1
    if not first:
        raise Refused(f"{path.name}: there is no message in column {message!r}")
    ids = [given for _, given in first.values() if given]
    if len(set(ids)) < len(ids):
        if id_column is not None:
            raise Refused(
                f"{path.name}: ids in {id_column!r} occur twice: name another --id-column"
            )
        notes.append(f"ids in {id_!r} occur twice: ids are made from the text")
        id_ = None
    if blank:
        notes.append(f"rows without a message, left out: {blank:,}")
    if copies := len(rows) - blank - len(first):
        notes.append(f"copies of other messages, asked once: {copies:,}")
    batch = storable(path.name)[:120]
    tasks = tuple(
        Task(
            schema="tasks/1",
            id=task_id(None, "learn", digest),
            message_id=(given if id_ else "") or f"m-{digest[:16]}",
            message_sha256=digest,
            text=text,
            purpose="learn",
            dataset=None,
            batch=batch,
        )
        for digest, (text, given) in first.items()
    )
    return Messages(path.name, table.found.words(), message, id_, len(rows), tasks, tuple(notes))


def _choose(table: Table, message: str | None, id_: str | None) -> tuple[str, str | None]:
    """Return the columns of the message and of the id: as named, by their names, or the one with
    the longest texts. Raises Refused."""
    there = f"There are: {', '.join(table.columns)}"
    for option, name in (("message", message), ("id", id_)):
        if name is not None and name not in table.columns:
            raise Refused(
                f"{table.name}: no column {name!r}. {there}. Name one by --{option}-column"
            )
    names = {column.casefold(): column for column in reversed(table.columns)}
    id_ = id_ or next((column for name, column in names.items() if name in _IDS), None)
    message = message or next((names[name] for name in _MESSAGES if name in names), None)
    if message is None:
        sample = table.sample()
        lengths = {
            column: sum(len(cells[at]) for cells in sample) / max(1, len(sample))
            for at, column in enumerate(table.columns)
        }
        message = max(lengths, key=lambda column: lengths[column])
        if lengths[message] < _LEAST_CHARS:
            raise Refused(
                f"{table.name}: no column looks like the message. {there}. Name one by "
                "--message-column"
            )
    return message, id_ if id_ != message else None


def load_messages(desk: Desk, messages: Messages) -> tuple[int, int]:
    """Store the messages that are new, and plan their order; return the batch and how many were
    new."""
    # By the file's name, not its content: a longer file adds its new messages to the same batch.
    key = sha256_json(["labelling/1", messages.name])
    batch = messages.tasks[0].batch
    added = batch_id = 0
    for begin in range(0, len(messages.tasks), AT_ONCE):
        some = messages.tasks[begin : begin + AT_ONCE]
        now_ms = desk.clock()
        with desk.database.write() as tx:
            batch_id = batches.begin(
                tx, key, dataset=None, name=batch, purpose="learn", person_id=None, now_ms=now_ms
            )
            known = batches.known(tx, [task.id for task in some])
            made = []
            for task in some:
                if task.id in known:
                    continue
                new = new_task(desk, task, key, now_ms)
                if is_drawn("labelling", "", task.message_sha256, 1 / EVERY):
                    new = replace(new, item=replace(new.item, origin="holdout"))
                made.append(new)
            added += batches.add(tx, batch_id, made, now_ms)
            batches.finish(tx, batch_id, now_ms)
    plan(desk, batch_id)
    return batch_id, added


def plan(desk: Desk, batch_id: int, suggestions: Sequence[Suggestion] = ()) -> int:
    """Put the open messages in order and store what is suggested for them; return how many of them
    have a suggestion. The random sample gets none and keeps its order.

    The place in the order is the time at which the message counts as received: queues ask the
    oldest first. Places begin where the decided messages end, so that every fourth message is of
    the random sample, however often the others are put into another order.
    """
    rank = {each.message_sha256: at for at, each in enumerate(suggestions)}
    with desk.database.write() as tx:
        batch = batches.get(tx, batch_id)
        assert batch is not None
        open_ = batches.open_tasks(tx, batch_id)
        done = batches.count_decided(tx, batch_id)
        random = [item for item, _, blind, _ in open_ if blind]
        others = [(item, digest) for item, digest, blind, _ in open_ if not blind]
        others.sort(key=lambda each: rank.get(each[1], len(rank)))
        places = {item: EVERY * (done[True] + at + 1) - 1 for at, item in enumerate(random)}
        for at, (item, _) in enumerate(others, done[False]):
            places[item] = EVERY * (at // (EVERY - 1)) + at % (EVERY - 1)
        now = {item: received_ms for item, _, _, received_ms in open_}
        wanted = {item: batch.begun_ms + place for item, place in places.items()}
        # Most of a large file stays where it is.
        batches.arrange(tx, {item: at for item, at in wanted.items() if at != now[item]})
        known = {
            item: (suggestions[rank[digest]].label, suggestions[rank[digest]].confidence)
            for item, digest in others
            if digest in rank and suggestions[rank[digest]].label in desk.taxonomy.names
        }
        batches.suggest(tx, known)
    return len(known)


@dataclass(frozen=True, slots=True)
class Summary:
    """The labelled messages of a batch. ``random`` of ``labelled`` are a random sample; ``none``
    fit no label and are in no file. ``seconds`` is the median for a decision, 0 without one;
    ``followed`` of ``suggested`` suggestions were."""

    labelled: int
    random: int
    none: int
    seconds: float
    suggested: int
    followed: int


def count_labelled(desk: Desk, batch_id: int) -> int:
    """Return how many messages of a batch are decided."""
    with desk.database.read() as tx:
        return sum(batches.count_decided(tx, batch_id).values())


def count_labels(desk: Desk, batch_id: int) -> Mapping[str, int]:
    """Return how many messages of a batch have each label."""
    with desk.database.read() as tx:
        found = batches.count_labels(tx, batch_id)
    return {name: found.get(name, 0) for name in desk.taxonomy.names}


def write_labelled(desk: Desk, batch_id: int, out: Path) -> Summary:
    """Write the labelled messages as JSON Lines: ``id``, ``message``, ``label``, ``label_source``
    and ``drawn``, which is ``random`` or ``chosen``. Without any no file is made."""
    with desk.database.read() as tx:
        found = batches.labelled(tx, batch_id)
    rows = [each for each in found if each.label is not None]
    if rows or out.exists():
        lines = (json.dumps(_row(each), ensure_ascii=False) + "\n" for each in rows)
        write_atomically(out, "".join(lines).encode(), mode=PRIVATE)
    shown = [each for each in found if each.suggested is not None]
    return Summary(
        labelled=len(rows),
        random=sum(_drawn(each) == "random" for each in rows),
        none=len(found) - len(rows),
        seconds=median([each.seconds for each in found]) if found else 0.0,
        suggested=len(shown),
        followed=sum(each.suggested == each.label for each in shown),
    )


def is_labelled(path: Path) -> bool:
    """Whether a file looks like one of ``write_labelled``."""
    with path.open("rb") as file:
        first = file.readline()
    return not first or (first.startswith(b'{"id": ') and b'"drawn": ' in first)


def _row(each: Labelled) -> Mapping[str, str | None]:
    return {
        "id": each.message_id,
        "message": each.text,
        "label": each.label,
        "label_source": "person",
        "drawn": _drawn(each),
    }


def _drawn(each: Labelled) -> str:
    """Without a suggestion the order is that of the digests, which is a random one."""
    return "random" if each.suggested is None else "chosen"
