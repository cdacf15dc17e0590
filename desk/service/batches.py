"""Files of tasks: messages that the trainer asks about come to the desk, and how far people are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

from desk.core.near import band_keys
from desk.core.queue import Origin
from desk.core.sampling import is_drawn
from desk.core.storable import storable
from desk.errors import Refused
from desk.service.context import Desk, require
from desk.store import batches, people
from desk.store.batches import Batch, Like, NewTask, Progress
from desk.store.items import NewItem
from desk.store.types import Person
from worker.contract.digest import sha256_json
from worker.contract.errors import RecordRefused
from worker.contract.exchange import Purpose, Task, parse_tasks
from worker.contract.text import message_sha256

__all__ = ["Batch", "BatchProgress", "Loaded", "Progress", "all_progress", "load", "load_tasks"]

ORIGINS: Mapping[Purpose, Origin] = {"check": "check", "audit": "holdout", "learn": "learn"}
"""Why an item is here, by what the task is for."""

NOTHING = Progress(**dict.fromkeys((field.name for field in fields(Progress)), 0))

_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file: tasks that are new here, those that were here, their batches."""

    new: int
    known: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A batch and how far it is."""

    batch: Batch
    progress: Progress


def load(desk: Desk, text: str, name: str, person: Person | None = None) -> Loaded:
    """Bring the tasks of a file here: all of them, or none where a line cannot be taken.

    ``name`` is the file's, for errors. A file that is loaded again, or whose load was cut off,
    brings what is missing. Raises Refused with the line at fault, NotAllowed.
    """
    if person is not None:
        require(person, "owner")
    try:
        tasks = parse_tasks(text, name)
    except RecordRefused as error:
        raise Refused(f"{error}: make the file anew, nothing of it was loaded") from None
    if not tasks:
        raise Refused(f"{name}: there is no task in it")
    for line, task in tasks.items():
        _check_labels(desk, task, f"{name}:{line}")
    return load_tasks(desk, tuple(tasks.values()), person)


def load_tasks(desk: Desk, tasks: Collection[Task], person: Person | None = None) -> Loaded:
    """Bring tasks here that were checked, each once by its id; see ``load``."""
    by_batch: dict[tuple[str | None, str, Purpose], list[Task]] = {}
    for task in tasks:
        by_batch.setdefault((task.dataset, task.batch, task.purpose), []).append(task)
    loaded = [_load_batch(desk, some, person) for some in by_batch.values()]
    new = sum(added for _, added in loaded)
    return Loaded(new, len(tasks) - new, tuple(batch_id for batch_id, _ in loaded))


def all_progress(desk: Desk) -> list[BatchProgress]:
    """Return all batches with how far each is, newest first."""
    with desk.database.read() as tx:
        found = batches.everything(tx)
        progress = batches.progress(tx)
    return [BatchProgress(batch, progress.get(batch.id, NOTHING)) for batch in found]


def _load_batch(desk: Desk, tasks: Sequence[Task], person: Person | None) -> tuple[int, int]:
    """Return the batch's id and how many tasks were new; one transaction for each ``_AT_ONCE``."""
    first = tasks[0]
    key = sha256_json(["batch", first.dataset, first.batch, first.purpose])
    by = person.id if person is not None else None
    added = batch_id = 0
    for begin in range(0, len(tasks), _AT_ONCE):
        now_ms = desk.clock()
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
            chunk = tasks[begin : begin + _AT_ONCE]
            made = [_new_task(desk, task, batch_id, key, now_ms) for task in chunk]
            added += batches.add(tx, batch_id, made, now_ms)
            if begin + _AT_ONCE >= len(tasks):
                batches.finish(tx, batch_id, now_ms)
                detail = {"batch": batch_id, "purpose": first.purpose, "new": added}
                people.log(tx, now_ms, by, "tasks.loaded", detail=detail)
    return batch_id, added


def _new_task(desk: Desk, task: Task, batch_id: int, key: str, now_ms: int) -> NewTask:
    text = storable(task.text)
    label = task.suggested or task.label or ""
    blind = task.purpose == "audit"
    share = desk.policy.audit_double_share if blind else desk.policy.double_share
    item = NewItem(
        result_id=task.id,
        source_topic="",
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
        adapter_digest=key,  # so that each batch has facets of its own
        taxonomy_digest=desk.taxonomy.digest,
        labelled_ms=now_ms,
        origin=ORIGINS[task.purpose],
        sample_share=None,
        opinions_wanted=2 if is_drawn("double", desk.project.installation, task.id, share) else 1,
        batch_id=batch_id,
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
    """Return what the order by confidence goes by: the lower, the sooner people should look."""
    if task.confidence is None:
        return 1.0
    return 1 - task.confidence if task.purpose == "check" else task.confidence


def _check_labels(desk: Desk, task: Task, where: str) -> None:
    """Raise Refused for a label that could not be decided on here. It is not repeated: it may be
    anything."""
    given = (task.label, task.suggested, *(task.scores or ()))
    if any(label is not None and label not in desk.taxonomy.names for label in given):
        taxonomy = desk.taxonomy
        raise Refused(
            f"{where}: a label is none of {taxonomy.name} {taxonomy.version}, the taxonomy of this "
            "desk: make the tasks from a dataset of that taxonomy, or go over to the other one "
            "(clerk-desk taxonomy); nothing of the file was loaded"
        )
