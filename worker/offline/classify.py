"""``clerk-worker classify``: label a text, a file or standard input without Kafka.

Prompts, engine, review rules and the output record are the worker's; only source and sink differ.
A record's ``source`` is the file, partition 0, and the row as a spreadsheet or an editor counts it.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from queue import Empty, Queue
from threading import Event, Thread
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.common.review_files import BYTE_ORDER_MARK, guard
from worker.common.tables.table import flatten
from worker.contract import Manifest
from worker.contract.codec import encode
from worker.contract.errors import MessageRejected
from worker.contract.records import OutputRecord, SupportMessage
from worker.contract.records.identity import Source, to_json
from worker.core.labeller import Labeller, Prepared, ServingAdapter
from worker.core.pipeline import MAX_ATTEMPTS
from worker.engine.port import Answer, Engine
from worker.errors import EngineDied
from worker.offline.message_files import TABLES, MessageFile, Row, file_row, read_rows
from worker.records.encode import OutputEncoder
from worker.records.types import Classified, Rejected, Timing
from worker.serving import make_serving_adapter, open_model, record_layout
from worker.settings import Settings

# Enough to keep an engine busy, and few enough that a large file is read while it is labelled.
_IN_FLIGHT = 128

_CHECK_S = 1.0

Result = Classified | Rejected


def run_classify(settings: Settings, given: str | MessageFile, *, as_json: bool = False) -> None:
    """Classify one text, or the messages of a file, and print. Raises WorkerStopped or
    AdapterRefused.

    Results are CSV for a table and JSON Lines otherwise; ``as_json`` makes them JSON Lines always.
    """
    # Before the engine starts, because a file of an unknown type is refused here.
    as_csv = isinstance(given, MessageFile) and given.kind in TABLES and not as_json
    if isinstance(given, str):
        rows: Iterable[Row] = [file_row("text", 1, SupportMessage(given, None))]
    else:
        rows = read_rows(given, record_layout(settings.records))
        if given.source != "-":
            rows = list(rows)  # a bad file is reported before the engine starts
    with clerk_of(settings) as clerk:
        results = clerk.answers(rows)
        if isinstance(given, str) and sys.stdout.isatty() and not as_json:
            _print_result(next(results)[1])
            return
        shown = with_progress(results, len(rows) if isinstance(rows, list) else None)
        if as_csv:
            _write_csv(shown, clerk)
        else:
            _write_json(shown, clerk.adapter.outputs)


@dataclass(frozen=True, slots=True)
class Clerk:
    """A model that is open."""

    adapter: ServingAdapter
    silence_s: float

    @property
    def labels(self) -> Sequence[str]:
        """The labels, in the taxonomy's order."""
        return self.adapter.manifest.taxonomy.names

    def label(self, messages: Iterable[str | SupportMessage]) -> Iterator[OutputRecord | NoLabel]:
        """Yield the record of each message, in their order, while later ones are still read. A
        message that gets no label (an empty one, for example) has ``label`` None and a ``reason``.
        Its ``source`` is its place, from 1 on. Raises EngineDied."""
        rows = (
            file_row("python", at, SupportMessage(each, None) if isinstance(each, str) else each)
            for at, each in enumerate(messages, start=1)
        )
        return (as_record(row, result, self.adapter.outputs) for row, result in self.answers(rows))

    def answers(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Result]]:
        """Yield the answer to each row: see ``label_in_order``."""
        adapter = self.adapter
        return label_in_order(adapter.labeller, adapter.engine, rows, silence_s=self.silence_s)


@contextmanager
def clerk_of(settings: Settings) -> Iterator[Clerk]:
    """Open the model of the settings, and close it at the end. Raises as ``open_model``."""
    opened = open_model(settings)
    try:
        adapter = make_serving_adapter(settings, opened.encoders, opened.manifest, opened.engine)
        yield Clerk(adapter, settings.loop.deadline_s)
    finally:
        opened.engine.close()


def label_in_order(
    labeller: Labeller, engine: Engine, rows: Iterable[Row], *, silence_s: float
) -> Iterator[tuple[Row, Result]]:
    """Classify messages concurrently and yield the results in input order, as a worker would.

    Rows are read on a separate thread, so that a result is yielded while the next row is still
    being typed. An error of ``rows`` is raised after the results before it. A message that is never
    answered gets no label (``silence_s``: see ``_wait_for_answer``). Raises EngineDied.
    """
    waiting: Queue[tuple[Row, _Asked | Rejected] | BaseException | None] = Queue(_IN_FLIGHT)
    ended = Event()

    def read() -> None:
        try:
            for row in rows:
                if ended.is_set():
                    return
                waiting.put((row, _ask(labeller, engine, row.message)))
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where results are consumed
            waiting.put(error)

    # A daemon thread: Ctrl-C must not wait for the next line of a terminal.
    Thread(target=read, name="rows", daemon=True).start()
    try:
        while (started := waiting.get()) is not None:
            if isinstance(started, BaseException):
                raise started
            row, asked = started
            if isinstance(asked, _Asked):
                yield row, _answer(labeller, engine, asked, silence_s)
            else:
                yield row, asked
    finally:
        # A reader that stops early leaves no thread behind that waits for room in the queue.
        ended.set()
        with suppress(Empty):
            while True:
                waiting.get_nowait()


def _answer(labeller: Labeller, engine: Engine, asked: _Asked, silence_s: float) -> Result:
    """Return the answer to a message; a failed one is asked again, as a worker does."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        _wait_for_answer(engine, labeller.manifest, asked.future, silence_s)
        result = _finish(labeller, asked, attempt, silence_s)
        if isinstance(result, Classified) or result.reason == "deadline_exceeded":
            break
        if attempt < MAX_ATTEMPTS:
            asked = _Asked(asked.prepared, engine)
    return result


def _wait_for_answer(
    engine: Engine, manifest: Manifest, future: Future[Answer], silence_s: float
) -> None:
    """Wait until ``future`` is answered; cancel it if the engine answers others. Raises EngineDied.

    A running worker tells a hanging engine from a single stuck message by the answers to later
    messages. Here there may be none, so after ``silence_s`` seconds a golden prompt is submitted.
    Without an answer to that the engine is dead.
    """
    if _wait(engine, [future], silence_s):
        return
    known = engine.submit(manifest.golden[0].ids)
    if not _wait(engine, [known, future], silence_s):
        raise EngineDied(f"the engine has answered nothing for {2 * silence_s:g} s")
    if known.done() and isinstance(error := known.exception(), EngineDied):
        raise error
    known.cancel()
    # Once more: a long message may be slower than the golden prompt, which does not test the second
    # stage of a cascade either.
    if not _wait(engine, [future], silence_s):
        future.cancel()


def _wait(engine: Engine, futures: Sequence[Future[Answer]], timeout_s: float) -> bool:
    """Wait until one of ``futures`` is answered; return whether one is. Raises EngineDied: a
    cascade's stage may die without failing its futures, so the health is checked in between."""
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        if wait(futures, timeout=min(left, _CHECK_S), return_when=FIRST_COMPLETED).done:
            return True
        engine.check_health()
    return False


class _Asked:
    """A message in the engine; ``engine_s`` is measured when the answer comes, not when its turn
    does."""

    def __init__(self, prepared: Prepared, engine: Engine) -> None:
        self.prepared, self.engine_s = prepared, 0.0
        self._since = time.monotonic()
        self.future = engine.submit(prepared.prompt_ids)
        self.future.add_done_callback(self._answered)

    def _answered(self, _future: Future[Answer]) -> None:
        self.engine_s = time.monotonic() - self._since


def _ask(
    labeller: Labeller, engine: Engine, message: SupportMessage | MessageRejected
) -> _Asked | Rejected:
    try:
        if isinstance(message, MessageRejected):
            raise message
        prepared = labeller.prepare_message(message)
    except MessageRejected as error:
        return Rejected(error.reason, "decode", error.detail)
    return _Asked(prepared, engine)


def _finish(labeller: Labeller, asked: _Asked, attempt: int, silence_s: float) -> Result:
    if asked.future.cancelled():
        detail = f"no answer within {2 * silence_s:g} s, while later messages were answered"
        return Rejected("deadline_exceeded", "engine", detail, attempt)
    try:
        # These messages did not wait in a loop, so a time in the queue would mean nothing.
        timing = Timing(queue_s=0.0, engine_s=asked.engine_s)
        return labeller.classify(asked.prepared, asked.future.result(), timing)
    except MessageRejected as error:
        return Rejected(error.reason, "engine", error.detail, attempt)


def with_progress(
    results: Iterator[tuple[Row, Result]], total: int | None, what: str = "labelling"
) -> Iterator[tuple[Row, Result]]:
    """Yield the results, with a progress bar if standard error is a terminal."""
    columns = (
        TextColumn(what, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, rate="")
        for result in results:
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, rate=f"{speed:.0f}/s" if speed else "")
            yield result


@dataclass(frozen=True, slots=True)
class NoLabel:
    """The line of a message without a label: a dead letter's reason, and the message's place."""

    id: str
    source: Source
    message_id: str | None
    reason: str
    error: str
    label: None = None


def as_record(row: Row, result: Result, outputs: OutputEncoder) -> OutputRecord | NoLabel:
    """Return a row's output record, or why it has none."""
    if isinstance(result, Classified):
        return outputs.build(row.record, result, datetime.now(UTC))
    source = Source(*row.record.origin, None)
    message = row.message
    message_id = message.message_id if isinstance(message, SupportMessage) else None
    return NoLabel(row.record.id, source, message_id, result.reason, result.detail)


def _write_json(results: Iterator[tuple[Row, Result]], outputs: OutputEncoder) -> None:
    for row, result in results:
        # Flushed, so that a program behind a pipe sees each result at once.
        print(to_json(as_record(row, result, outputs)).decode(), flush=True)


# A spreadsheet shows them next to the input's columns; the record's other fields follow.
_FIRST = ("label", "confidence", "review.needed", "review.reasons", "reason", "error")
_INPUT = "input."


def _write_csv(results: Iterator[tuple[Row, Result]], clerk: Clerk) -> None:
    """Write the input's columns, named input.NAME, and the record's fields, named by their paths in
    its JSON. Cells that a spreadsheet would run as a formula begin with an apostrophe."""
    names = [*dict.fromkeys((*_FIRST, *_columns(OutputRecord, clerk.labels)))]
    if not clerk.adapter.manifest.stages:
        names = [name for name in names if not name.startswith("cascade.")]
    writer: csv.DictWriter[str] | None = None
    for row, result in results:
        if writer is None:
            columns = [*(_INPUT + name for name in row.cells), *names]
            sys.stdout.write(BYTE_ORDER_MARK)
            writer = csv.DictWriter(sys.stdout, columns, restval="")
            writer.writeheader()
        cells = {_INPUT + name: guard(cell or "") for name, cell in row.cells.items()}
        cells |= _cells(encode(as_record(row, result, clerk.adapter.outputs)))
        writer.writerow(cells)


def _columns(kind: type, labels: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Yield the paths of a record's fields. The list of a cascade's earlier stages is one cell, and
    there is no ``replay``."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        path, hint = prefix + field.name, hints[field.name]
        parts = get_args(hint) if get_origin(hint) in {UnionType, Annotated} else (hint,)
        inner = next((part for part in parts if is_dataclass(part)), None)
        if path == "scores":
            yield from (f"scores.{label}" for label in labels)
        elif isinstance(inner, type) and path != "replay":
            yield from _columns(inner, labels, f"{path}.")
        elif path != "replay":
            yield path


def _cells(record: Mapping[str, Any]) -> dict[str, str]:
    """Return a record's cells by the paths of its fields."""
    return {name: _cell(name, value) for name, value in flatten(record).items()}


def _cell(name: str, value: Any) -> str:
    if name == "review.reasons":
        return " ".join(value)
    if isinstance(value, str):
        return guard(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _print_result(result: Result) -> None:
    console = Console(highlight=False)
    if isinstance(result, Rejected):
        console.print(f"[red]no label[/red]  {escape(f'{result.reason}: {result.detail}')}")
        return
    decision = result.decision
    console.print(f"[bold green]{escape(decision.label)}[/bold green]  {decision.confidence:.1%}")
    ranked = sorted(decision.scores.items(), key=lambda scored: -scored[1])
    for label, score in ranked[1:4]:
        console.print(f"[dim]{escape(label)}  {score:.1%}[/dim]")
    if decision.off_label_mass is not None:
        console.print(f"[dim]no label fits  {decision.off_label_mass:.1%}[/dim]")
    if decision.out_of_scope is not None:
        console.print(f"[dim]out of scope  {decision.out_of_scope:.3f}[/dim]")
    for number, earlier in enumerate(decision.earlier, start=1):
        text = f"stage {number}: {earlier.label}  {earlier.confidence:.1%}"
        console.print(f"[dim]{escape(text)}[/dim]")
    if result.review:
        console.print(f"[yellow]for review: {', '.join(result.review)}[/yellow]")
