"""Labelling without Kafka: a text, a file or standard input, to standard output.

The same contract, engine and review rules as in the stream; only source and sink differ.
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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.core.labeller import Labeller
from worker.engine.port import Answer, Engine
from worker.errors import MessageRejected, SettingsError
from worker.records.decode import extract_message
from worker.records.types import SupportMessage
from worker.serving import make_labeller, open_model
from worker.settings import Settings

InputFormat = Literal["csv", "jsonl", "text"]

_IN_FLIGHT = 128
# Prefixed: a file to be labelled often has a column of labels already.
_CSV_PREFIX = "clerk_"
_CSV_COLUMNS = ("label", "confidence", "off_label_mass", "review", "error")

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line: one ``text``, or a ``source`` of many."""

    text: str | None
    source: str | None
    format: InputFormat | None
    field: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """One message of the input: its fields as they came, and its text or why there is none."""

    fields: dict[str, Any]
    message: SupportMessage | MessageRejected


def run_classify(settings: Settings, request: Request) -> None:
    """Label what was asked for and print it. Raises WorkerStopped or AdapterRefused."""
    if request.text is not None:
        rows: Iterable[Row] = [Row({}, SupportMessage(request.text, None))]
        kind: InputFormat = "text"
    else:
        kind = _format(request)
        rows = _read(request, kind, settings)
        if request.source != "-":
            rows = list(rows)  # a bad file is told before the engine is started
    opened = open_model(settings)
    try:
        labeller = make_labeller(settings, opened)
        results = label_in_order(labeller, opened.engine, rows)
        if request.text is not None and sys.stdout.isatty():
            _print_one(next(results)[1])
        else:
            _write(_progress(results, len(rows) if isinstance(rows, list) else None), kind)
    finally:
        opened.engine.close()


def label_in_order(
    labeller: Labeller, engine: Engine, rows: Iterable[Row]
) -> Iterator[tuple[Row, Result]]:
    """Label messages, many at a time, and give the results in the order of the input, each as
    soon as it is there: rows are read on a thread of their own, which may wait for the next one
    as long as it likes."""
    waiting: Queue[tuple[Row, Future[Answer] | None, Result] | BaseException | None] = Queue(
        _IN_FLIGHT
    )

    def read() -> None:
        try:
            for row in rows:
                waiting.put((row, *_start(labeller, engine, row.message)))
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks for results
            waiting.put(error)

    # A daemon: Ctrl-C must not wait for the next line of a terminal.
    Thread(target=read, name="rows", daemon=True).start()
    while (one := waiting.get()) is not None:
        if isinstance(one, BaseException):
            raise one
        row, future, known = one
        yield row, _finish(labeller, future, known)


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


def _finish(labeller: Labeller, future: Future[Answer] | None, known: Result) -> Result:
    if future is None:
        return known
    try:
        decision = labeller.decide(future.result())
    except MessageRejected as error:
        return {"label": None, "error": str(error)}
    mass = decision.off_label_mass
    return {
        "label": decision.label,
        "confidence": round(decision.confidence, 6),
        "off_label_mass": None if mass is None else round(mass, 6),
        "review": list(labeller.review_reasons(decision)),
        "scores": {label: round(score, 6) for label, score in decision.scores.items()},
        **known,
    }


def _format(request: Request) -> InputFormat:
    if request.format is not None:
        return request.format
    endings: dict[str, InputFormat] = {
        ".csv": "csv",
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".txt": "text",
    }
    found = endings.get(Path(request.source or "").suffix.lower())
    if found is None:
        raise SettingsError(f"--input {request.source}: say its format with --format")
    return found


def _read(request: Request, kind: InputFormat, settings: Settings) -> Iterator[Row]:
    with _open(request.source or "-") as file:
        try:
            if kind == "csv":
                yield from _read_csv(file, request)
            elif kind == "jsonl":
                yield from _read_jsonl(file, request, settings)
            else:
                yield from (
                    Row({"line": number}, SupportMessage(line.rstrip("\r\n"), None))
                    for number, line in enumerate(file, 1)
                )
        except (UnicodeDecodeError, csv.Error) as error:
            raise SettingsError(f"--input {request.source}: is not readable: {error}") from error


def _read_csv(file: IO[str], request: Request) -> Iterator[Row]:
    reader = csv.DictReader(file)
    column = request.field or "message"
    columns = list(reader.fieldnames or [])
    if column not in columns:
        raise SettingsError(
            f"--input {request.source}: has no column {column!r} (it has "
            f"{', '.join(columns) or 'none'}): name it with --field"
        )
    for fields in reader:
        yield Row(fields, SupportMessage(fields[column] or "", None))


def _read_jsonl(file: IO[str], request: Request, settings: Settings) -> Iterator[Row]:
    from worker.records.decode import InputFormat as Layout

    records = settings.records
    layout = Layout(
        "json", (request.field,) if request.field else records.text_fields, records.id_field
    )
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError:
            yield Row({"line": number}, MessageRejected("not_json", "the line is not JSON"))
            continue
        try:
            message = extract_message(data, layout)
        except MessageRejected as error:
            yield Row({"line": number}, error)
            continue
        yield Row({"line": number, "message_id": message.message_id}, message)


@contextmanager
def _open(source: str) -> Iterator[IO[str]]:
    if source == "-":
        # Not sys.stdin: at exit Python waits for whoever reads that.
        with open(0, encoding="utf-8-sig", newline="", closefd=False) as file:
            yield file
        return
    try:
        with Path(source).open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise SettingsError(f"--input {source}: {error.strerror}") from error


def _progress(
    results: Iterator[tuple[Row, Result]], total: int | None
) -> Iterator[tuple[Row, Result]]:
    columns = (
        TextColumn("labelling"),
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


def _write(results: Iterator[tuple[Row, Result]], kind: InputFormat) -> None:
    if kind != "csv":
        for row, result in results:
            print(json.dumps({**row.fields, **result}, ensure_ascii=False), flush=True)
        return
    writer: csv.DictWriter[str] | None = None
    for row, result in results:
        if writer is None:
            columns = [*row.fields, *(_CSV_PREFIX + name for name in _CSV_COLUMNS)]
            writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", restval="")
            writer.writeheader()
        shown = {**result, "review": " ".join(result.get("review", []))}
        added = {_CSV_PREFIX + name: shown.get(name) for name in _CSV_COLUMNS}
        writer.writerow({**row.fields, **added})


def _print_one(result: Result) -> None:
    console = Console(highlight=False)
    if result.get("error"):
        console.print(f"[red]no label[/red]  {result['error']}")
        return
    console.print(f"[bold green]{result['label']}[/bold green]  {result['confidence']:.1%}")
    ranked = sorted(result["scores"].items(), key=lambda one: -one[1])
    for label, score in ranked[1:4]:
        console.print(f"[dim]{label}  {score:.1%}[/dim]")
    if result["off_label_mass"] is not None:
        console.print(f"[dim]outside every label  {result['off_label_mass']:.1%}[/dim]")
    if result["review"]:
        console.print(f"[yellow]a human should look: {', '.join(result['review'])}[/yellow]")
