"""``clerk-worker classify --out``: label files of any size in parts, each written whole or not.

The plan is written first: files, and the rows of each part. Started again, the same command does
what is missing. Several processes may share a plan (``--part 2/8``). Rows are read, labelled and
written as they come, so memory does not grow with the input.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from worker.contract.digest import write_atomically
from worker.contract.manifest import read_manifest
from worker.contract.records.identity import to_json
from worker.contract.store import find_adapter
from worker.errors import SettingsError
from worker.offline.classify import Clerk, Result, as_record, clerk_of, with_progress
from worker.offline.message_files import MessageFile, Row, read_rows
from worker.records.types import Classified
from worker.serving import record_layout
from worker.settings import Settings

PART_ROWS = 10_000
PLAN = "plan.json"
TRIAL_ROWS = 200

_log = structlog.get_logger("worker.backfill")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one file: ``first`` counts from 0. ``name`` is the file that it is written to."""

    name: str
    file: str
    first: int
    rows: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is labelled, by which adapter and settings. ``files``: each one's size and time of
    change."""

    schema: str
    adapter: str
    options: dict[str, str | None]
    files: dict[str, tuple[int, int]]
    parts: tuple[Part, ...]


def run_backfill(
    settings: Settings, given: MessageFile, out: Path, *, share: tuple[int, int] = (1, 1)
) -> None:
    """Label a file, or a folder's files, into ``out``; the share (2, 8) is the second of eight.

    Raises SettingsError for files that cannot be read, all at once, and for another plan in
    ``out``; WorkerStopped, AdapterRefused.
    """
    if out.resolve().is_relative_to(Path(given.source).resolve()):
        raise SettingsError(f"--out {out}: lies in the input, and would be read as messages")
    plan = _plan(settings, given, out)
    number, shares = share
    begin, end = ((at * len(plan.parts)) // shares for at in (number - 1, number))
    missing = [part for part in plan.parts[begin:end] if not (out / part.name).exists()]
    total = sum(part.rows for part in missing)
    _log.info("backfill.started", parts=len(missing), of=end - begin, rows=total)
    counts: Counter[str] = Counter()
    if missing:
        with clerk_of(settings) as clerk:
            if clerk.adapter.digest != plan.adapter:
                raise SettingsError("the store has another current adapter since the plan was made")
            counts = _label(clerk, _rows_in(settings, _files(given), missing), missing, out)
    labels, review = counts.pop("label", 0), counts.pop("review", 0)
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.most_common())
    left = sum(not (out / part.name).exists() for part in plan.parts)
    print(
        f"{total:,} rows: {labels:,} labelled, {review:,} of these for review, "
        f"{counts.total():,} without a label{f' ({reasons})' if reasons else ''}; "
        f"{len(plan.parts) - left:,} of {len(plan.parts):,} parts are in {out}",
        file=sys.stderr,
    )


def try_backfill(settings: Settings, given: MessageFile) -> None:
    """Label the first rows and print what all would take. Raises as ``run_backfill``."""
    files = _files(given)
    rows = sum(_count_rows(settings, files).values())
    if not rows:
        raise SettingsError(f"--input {given.source}: has no rows")
    with clerk_of(settings) as clerk:
        layout = record_layout(settings.records)
        rows_of_all = chain.from_iterable(read_rows(file, layout) for file in files)
        first = list(islice(rows_of_all, 2 * TRIAL_ROWS))
        warm, timed = first[: len(first) // 2], first[len(first) // 2 :]
        list(clerk.answers(warm))
        began = time.monotonic()
        list(clerk.answers(timed))
        rate = len(timed) / (time.monotonic() - began)
    print(
        f"{rows:,} rows in {len(files):,} files at {rate:,.0f}/s, measured on {len(timed)} rows: "
        f"{_duration(rows / rate)} on this machine, {_duration(rows / rate / 8)} on eight like it"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def _plan(settings: Settings, given: MessageFile, out: Path) -> Plan:
    """Return the plan in ``out``; make it the first time. Raises SettingsError."""
    files = _files(given)
    if settings.model.adapter is None:
        raise SettingsError("model.adapter is not set: name an adapter's directory or a store")
    wanted = Plan(
        "backfill/1",
        read_manifest(find_adapter(settings.model.adapter).directory).digest,
        {
            "format": given.format,
            "field": given.field,
            "records": settings.records.model_dump_json(),
            "review": settings.review.model_dump_json(),
            "precision": settings.model.encoder_precision,
        },
        {file.name: _stamp(Path(file.source)) for file in files},
        (),
    )
    path = out / PLAN
    if path.exists():
        try:
            found = TypeAdapter(Plan).validate_json(path.read_bytes())
        except ValidationError as error:
            raise SettingsError(f"{path}: is no plan of parts: choose another --out") from error
        for what in ("adapter", "options", "files"):
            if getattr(found, what) != getattr(wanted, what):
                raise SettingsError(
                    f"{path}: was made for other {what}: choose another --out, or the same {what} "
                    "as then"
                )
        return found
    rows = _count_rows(settings, files)
    out.mkdir(parents=True, exist_ok=True)
    parts = [
        (file, first, min(PART_ROWS, count - first))
        for file, count in rows.items()
        for first in range(0, count, PART_ROWS)
    ]
    named = tuple(Part(f"part-{number:06}.jsonl", *part) for number, part in enumerate(parts, 1))
    plan = replace(wanted, parts=named)
    # Several processes may begin at once; each writes the same.
    write_atomically(path, TypeAdapter(Plan).dump_json(plan, indent=1))
    return plan


def _files(given: MessageFile) -> list[MessageFile]:
    """Return the file, or the folder's files in order. Raises SettingsError."""
    root = Path(given.source)
    if not root.is_dir():
        return [replace(given, keep_broken=True)]
    found = [
        MessageFile(str(path), given.format, given.field, folder=str(root), keep_broken=True)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith((".", "_"))  # _SUCCESS of a Spark job
    ]
    if not found:
        raise SettingsError(f"--input {root}: the folder has no files")
    return found


def _count_rows(settings: Settings, files: Sequence[MessageFile]) -> dict[str, int]:
    """Read all files once. Raises SettingsError with every file that cannot be read."""
    found, problems = {}, []
    for file in files:
        try:
            found[file.name] = sum(1 for _ in read_rows(file, record_layout(settings.records)))
        except SettingsError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError(*problems)
    return found


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise SettingsError(f"--input {path}: not readable: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def _rows_in(
    settings: Settings, files: Sequence[MessageFile], parts: Sequence[Part]
) -> Iterator[Row]:
    """Yield the rows of parts; each file is read once, whatever is left out of it."""
    by_name = {file.name: file for file in files}
    for name, own in groupby(parts, key=lambda part: part.file):
        rows, at = read_rows(by_name[name], record_layout(settings.records)), 0
        for part in own:
            yield from islice(rows, part.first - at, part.first - at + part.rows)
            at = part.first + part.rows


def _label(clerk: Clerk, rows: Iterator[Row], parts: Sequence[Part], out: Path) -> Counter[str]:
    """Label and write parts; return how many rows have a label, a review, or none by reason."""
    counts: Counter[str] = Counter()
    total = sum(part.rows for part in parts)
    # One stream over all parts: the engine does not run empty at the end of each.
    results = with_progress(clerk.answers(rows), total)
    began, done = time.monotonic(), 0
    for part in parts:
        write_atomically(out / part.name, _lines(clerk, part, results, counts))
        done += part.rows
        rate = done / (time.monotonic() - began)
        _log.info(
            "backfill.part",
            part=part.name,
            rows=done,
            of=total,
            rows_per_s=round(rate, 1),
            left_s=round((total - done) / rate),
        )
    return counts


def _lines(
    clerk: Clerk, part: Part, results: Iterator[tuple[Row, Result]], counts: Counter[str]
) -> Iterator[bytes]:
    written = 0
    for row, result in islice(results, part.rows):
        if row.record.source.topic != part.file:
            break
        if isinstance(result, Classified):
            counts["label"] += 1
            counts["review"] += bool(result.review)
        else:
            counts[result.reason] += 1
        yield to_json(as_record(row, result, clerk.adapter.outputs)) + b"\n"
        written += 1
    if written < part.rows:
        raise SettingsError(f"--input: {part.file} has changed since the plan was made")
