"""``clerk-worker classify``: label a text, a file or standard input without Kafka.

Prompts, engine and review rules are the worker's; only the source and the sink differ.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.contract import Decision
from worker.contract.records import InputFormat as Layout
from worker.contract.records import SupportMessage
from worker.contract.records.decode import extract_message, look_up
from worker.core.labeller import Labeller
from worker.engine.port import Answer, Engine, StageDecisions
from worker.errors import MessageRejected, SettingsError
from worker.offline.answers import wait_for_answers, why_cancelled
from worker.serving import make_labeller, open_model, record_layout
from worker.settings import Settings

# Enough to keep an engine busy, and few enough that a large file is read while it is labelled.
_IN_FLIGHT = 128
# Prefixed because an input file often has a column "label" already.
_CSV_PREFIX = "clerk_"
_CSV_COLUMNS = ("label", "confidence", "off_label_mass", "review", "error")

Result = dict[str, Any]


FileFormat = Literal["csv", "jsonl", "text"]
_ENDINGS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
}


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """One ``text`` to classify, or a ``source`` of many (a path, or - for standard input)."""

    text: str | None
    source: str | None
    format: FileFormat | None
    field: str | None


def run_classify(settings: Settings, request: ClassifyRequest) -> None:
    """Classify and print. Raises WorkerStopped or AdapterRefused."""
    if request.text is not None:
        rows: Iterable[Row] = [Row({}, SupportMessage(request.text, None))]
        kind: FileFormat = "text"
    else:
        file = MessageFile(request.source or "-", request.format, request.field)
        kind = file_format(file)
        rows = read_rows(file, record_layout(settings.records))
        if request.source != "-":
            rows = list(rows)  # a bad file is reported before the engine starts
    opened = open_model(settings)
    try:
        labeller = make_labeller(settings, opened)
        results = label_in_order(labeller, opened.engine, rows, silence_s=settings.loop.deadline_s)
        if request.text is not None and sys.stdout.isatty():
            _print_result(next(results)[1])
        else:
            _write(with_progress(results, len(rows) if isinstance(rows, list) else None), kind)
    finally:
        opened.engine.close()


def label_in_order(
    labeller: Labeller, engine: Engine, rows: Iterable[Row], *, silence_s: float
) -> Iterator[tuple[Row, Result]]:
    """Classify messages concurrently and yield the results in input order.

    Rows are read on a separate thread, so that a result is yielded while the next row is still
    being typed. An error of ``rows`` is raised after the results before it. A message that is never
    answered gets no label (``silence_s``: see ``wait_for_answers``). Raises EngineDied.
    """
    waiting: Queue[tuple[Row, Future[Answer] | None, Result] | BaseException | None] = Queue(
        _IN_FLIGHT
    )

    def read() -> None:
        try:
            for row in rows:
                waiting.put((row, *_start(labeller, engine, row.message)))
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where results are consumed
            waiting.put(error)

    # A daemon thread: Ctrl-C must not wait for the next line of a terminal.
    Thread(target=read, name="rows", daemon=True).start()
    while (started := waiting.get()) is not None:
        if isinstance(started, BaseException):
            raise started
        row, future, known = started
        if future is not None:
            wait_for_answers(engine, labeller.manifest, [future], silence_s)
        yield row, _finish(labeller, future, known, silence_s)


def _start(
    labeller: Labeller, engine: Engine, message: SupportMessage | MessageRejected
) -> tuple[Future[Answer] | None, Result]:
    try:
        if isinstance(message, MessageRejected):
            raise message
        prepared = labeller.prepare_message(message)
    except MessageRejected as error:
        return None, {"label": None, "error": str(error)}
    return engine.submit(prepared.prompt_ids), {"truncated": prepared.truncated}


def _finish(
    labeller: Labeller, future: Future[Answer] | None, known: Result, silence_s: float
) -> Result:
    if future is None:
        return known
    if future.cancelled():
        return {"label": None, "error": f"deadline_exceeded: {why_cancelled(silence_s)}"}
    try:
        answer = future.result()
        decision = labeller.decide(answer)
    except MessageRejected as error:
        return {"label": None, "error": str(error)}
    mass, score = decision.off_label_mass, decision.out_of_scope
    return {
        "label": decision.label,
        "confidence": round(decision.confidence, 6),
        "off_label_mass": None if mass is None else round(mass, 6),
        "review": list(labeller.review_reasons(decision)),
        "scores": {name: round(share, 6) for name, share in decision.scores.items()},
        **({} if score is None else {"out_of_scope": round(score, 6)}),
        **_cascade(labeller, decision),
        **known,
        **({"truncated": answer.truncated} if isinstance(answer, StageDecisions) else {}),
    }


def _cascade(labeller: Labeller, decision: Decision) -> Result:
    """Return the stage of a cascade that answered, and the answers of those before it."""
    stages = labeller.manifest.stages
    if not stages:
        return {}
    earlier = zip(stages, decision.earlier, strict=False)
    return {
        "stage": stages[len(decision.earlier)].name,
        "earlier": [
            {
                "stage": stage.name,
                "label": decided.label,
                "confidence": round(decided.confidence, 6),
            }
            for stage, decided in earlier
        ],
    }


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


def _write(results: Iterator[tuple[Row, Result]], kind: FileFormat) -> None:
    if kind != "csv":
        for row, result in results:
            # Flushed, so that a program behind a pipe sees each result at once.
            print(json.dumps({**row.fields, **result}, ensure_ascii=False), flush=True)
        return
    writer: csv.DictWriter[str] | None = None
    for row, result in results:
        if writer is None:
            columns = [*row.fields, *(_CSV_PREFIX + name for name in _CSV_COLUMNS)]
            # Rows with more cells than the header are accepted; their extra cells are dropped.
            writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", restval="")
            writer.writeheader()
        shown = {**result, "review": " ".join(result.get("review", []))}
        added = {_CSV_PREFIX + name: shown.get(name) for name in _CSV_COLUMNS}
        writer.writerow({**row.fields, **added})


def _print_result(result: Result) -> None:
    console = Console(highlight=False)
    if result.get("error"):
        console.print(f"[red]no label[/red]  {escape(result['error'])}")
        return
    console.print(f"[bold green]{escape(result['label'])}[/bold green]  {result['confidence']:.1%}")
    ranked = sorted(result["scores"].items(), key=lambda scored: -scored[1])
    for label, score in ranked[1:4]:
        console.print(f"[dim]{escape(label)}  {score:.1%}[/dim]")
    if result["off_label_mass"] is not None:
        console.print(f"[dim]no label fits  {result['off_label_mass']:.1%}[/dim]")
    if result.get("out_of_scope") is not None:
        console.print(f"[dim]out of scope  {result['out_of_scope']:.3f}[/dim]")
    for stage in result.get("earlier", ()):
        text = f"{stage['stage']}: {stage['label']}  {stage['confidence']:.1%}"
        console.print(f"[dim]{escape(text)}[/dim]")
    if result["review"]:
        console.print(f"[yellow]for review: {', '.join(result['review'])}[/yellow]")


@dataclass(frozen=True, slots=True)
class MessageFile:
    """An input file. ``source`` is a path, or - for standard input.

    Without ``format`` the file name's ending decides. ``field`` is the CSV column or JSON path of
    the message, ``label_field`` that of its true label, if any.
    """

    source: str
    format: FileFormat | None = None
    field: str | None = None
    label_field: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One message of the input: its original fields, its text or why it has none, and its true
    label, if requested and present."""

    fields: dict[str, Any]
    message: SupportMessage | MessageRejected
    label: str | None = None


def file_format(file: MessageFile) -> FileFormat:
    """Return the given format, or that of the file name's ending. Raises SettingsError."""
    found = file.format or _ENDINGS.get(Path(file.source).suffix.lower())
    if found is None:
        raise SettingsError(f"--input {file.source}: unknown file type: give its --format")
    return found


def read_rows(file: MessageFile, layout: Layout) -> Iterator[Row]:
    """Yield every message in order. ``layout`` has the JSON fields if ``file`` names none. Raises
    SettingsError for an unreadable file or a missing column."""
    kind = file_format(file)
    with _open(file.source) as lines:
        try:
            if kind == "csv":
                yield from _read_csv(lines, file)
            elif kind == "jsonl":
                yield from _read_jsonl(lines, file, layout)
            else:
                yield from (
                    Row({"line": number}, SupportMessage(line.rstrip("\r\n"), None))
                    for number, line in enumerate(lines, 1)
                )
        except (UnicodeDecodeError, csv.Error) as error:
            raise SettingsError(f"--input {file.source}: not readable: {error}") from error


def _read_csv(lines: IO[str], file: MessageFile) -> Iterator[Row]:
    reader = csv.DictReader(lines)
    columns = list(reader.fieldnames or [])
    column = file.field or "message"
    for name, option in ((column, "--field"), (file.label_field, "--label-field")):
        if name is not None and name not in columns:
            raise SettingsError(
                f"--input {file.source}: no column {name!r}, only "
                f"{', '.join(columns) or 'an empty header'}: choose one with {option}"
            )
    for fields in reader:
        label = fields[file.label_field] if file.label_field else None
        yield Row(fields, SupportMessage(fields[column] or "", None), label or None)


def _read_jsonl(lines: IO[str], file: MessageFile, layout: Layout) -> Iterator[Row]:
    if file.field:
        layout = Layout("json", (file.field,), layout.id_field)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            yield Row({"line": number}, MessageRejected("not_json", "the line is not JSON"))
            continue
        label = look_up(data, file.label_field) if file.label_field else None
        label = label if isinstance(label, str) and label else None
        try:
            message = extract_message(data, layout)
        except MessageRejected as error:
            yield Row({"line": number}, error, label)
            continue
        yield Row({"line": number, "message_id": message.message_id}, message, label)


@contextmanager
def _open(source: str) -> Iterator[IO[str]]:
    if source == "-":
        # Not sys.stdin: at exit Python waits for a thread that reads it, so Ctrl-C would hang.
        with open(0, encoding="utf-8-sig", newline="", closefd=False) as file:
            yield file
        return
    try:
        with Path(source).open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise SettingsError(f"--input {source}: {error.strerror}") from error
