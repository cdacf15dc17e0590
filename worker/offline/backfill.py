"""``clerk-worker classify --out``: label files of any size in parts, each written whole or not.

The plan is written first: files, and the rows of each part. Started again, the same command does
what is missing. Several processes may share a plan (``--part 2/8``). Rows are read, labelled and
written as they come, so memory does not grow with the input.
"""

from __future__ import annotations

import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from worker.common.bucket import is_url
from worker.contract.manifest import read_manifest
from worker.contract.records.identity import to_json
from worker.contract.store import find_adapter
from worker.errors import SettingsError
from worker.offline.classify import Clerk, Result, as_record, clerk_of, with_progress
from worker.offline.message_files import MessageFile, Row
from worker.offline.part_store import (
    PartFormat,
    PartStore,
    as_parquet,
    list_files,
    part_store,
    rows_of,
)
from worker.offline.ray_parts import Actors, LabelParts, on_ray
from worker.records.types import Classified
from worker.serving import record_layout
from worker.settings import KafkaSettings, Settings

PART_ROWS = 10_000
PLAN = "_plan.json"  # readers of folders leave such names out
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


@dataclass(frozen=True, slots=True)
class _Machine:
    name: str
    currency: str
    per_hour: float


@dataclass(frozen=True, slots=True)
class _Prices:
    machine: list[_Machine]


def run_backfill(
    settings: Settings,
    given: MessageFile,
    out: Path | str,
    *,
    share: tuple[int, int] = (1, 1),
    part_format: PartFormat = "jsonl",
    actors: Actors | None = None,
) -> None:
    """Label a file, or a folder's files, into the folder or bucket ``out``; the share (2, 8) is the
    second of eight. With ``actors`` on a Ray cluster.

    Raises SettingsError for files that cannot be read, all at once, and for another plan in
    ``out``; WorkerStopped, AdapterRefused.
    """
    out = str(out)
    if is_url(out) or is_url(given.source):
        inside = f"{out}/".startswith(f"{given.source.rstrip('/')}/")
    else:
        inside = Path(out).resolve().is_relative_to(Path(given.source).resolve())
    if inside:
        raise SettingsError(f"--out {out}: lies in the input, and would be read as messages")
    store = part_store(out)
    plan, files = _plan(settings, given, out, store, part_format)
    number, shares = share
    begin, end = ((at * len(plan.parts)) // shares for at in (number - 1, number))
    there = store.names()
    missing = [at for at in range(begin, end) if plan.parts[at].name not in there]
    total = sum(plan.parts[at].rows for at in missing)
    _log.info("backfill.started", parts=len(missing), of=end - begin, rows=total)
    counts: Counter[str] = Counter()
    if missing:
        labelling = partial(_labelling, settings, files, out, plan)
        if actors is None:
            with labelling() as label:
                counts = label(missing)
        else:
            # Ray's objects need no passwords of Kafka.
            plain = settings.model_copy(update={"kafka": KafkaSettings()})
            labelling = partial(_labelling, plain, files, out, plan)
            counts = _label_on_ray(labelling, plan, missing, actors)
    labels, review = counts.pop("label", 0), counts.pop("review", 0)
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.most_common())
    there = store.names()
    done = sum(part.name in there for part in plan.parts)
    print(
        f"{total:,} rows: {labels:,} labelled, {review:,} of these for review, "
        f"{counts.total():,} without a label{f' ({reasons})' if reasons else ''}; "
        f"{done:,} of {len(plan.parts):,} parts are in {out}",
        file=sys.stderr,
    )


@contextmanager
def _labelling(
    settings: Settings, files: Mapping[str, MessageFile], out: str, plan: Plan
) -> Iterator[LabelParts]:
    """Open the model; yield the function that labels and writes parts of the plan."""
    with clerk_of(settings) as clerk:
        if clerk.adapter.digest != plan.adapter:
            raise SettingsError("the store has another current adapter since the plan was made")
        store = part_store(out)

        def label(places: Sequence[int]) -> Counter[str]:
            parts = [plan.parts[at] for at in places]
            return _label(clerk, _rows_in(settings, files, parts), parts, store)

        yield label


def _label_on_ray(
    labelling: Callable[[], AbstractContextManager[LabelParts]],
    plan: Plan,
    missing: Sequence[int],
    actors: Actors,
) -> Counter[str]:
    # Several parts of a file at once, because the rows before a part are read to reach it.
    most = max(1, min(16, len(missing) // (8 * actors.count)))
    work = [
        run
        for _, own in groupby(missing, key=lambda at: plan.parts[at].file)
        for run in _runs(list(own), most)
    ]
    counts: Counter[str] = Counter()
    total, done, began = sum(plan.parts[at].rows for at in missing), 0, time.monotonic()
    for at, (parts, found) in enumerate(on_ray(labelling, work, actors), 1):
        counts += found
        done += sum(plan.parts[each].rows for each in parts)
        _log_progress(f"{at} of {len(work)} batches", done, total, began)
    return counts


def _runs(places: Sequence[int], most: int) -> Iterator[list[int]]:
    for at in range(0, len(places), most):
        yield list(places[at : at + most])


def try_backfill(settings: Settings, given: MessageFile, prices: Path | None = None) -> None:
    """Label the first rows and print what all would take, and at the ``prices`` of machines what
    that would cost. Raises as ``run_backfill``."""
    machines = _read_prices(prices) if prices else []
    files = {name: file for name, (file, _) in list_files(given).items()}
    rows = sum(_count_rows(settings, files).values())
    if not rows:
        raise SettingsError(f"--input {given.source}: has no rows")
    with clerk_of(settings) as clerk:
        layout = record_layout(settings.records)
        rows_of_all = chain.from_iterable(rows_of(file, layout) for file in files.values())
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

    for machine in machines:
        cost = rows / rate / 3600 * machine.per_hour
        print(f"{cost:,.2f} {machine.currency} on {machine.name}, if it is as fast as this one")


def _read_prices(path: Path) -> list[_Machine]:
    try:
        return TypeAdapter(_Prices).validate_python(tomllib.loads(path.read_text())).machine
    except (OSError, ValueError) as error:
        raise SettingsError(f"--prices {path}: {error}") from None


def _duration(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def _plan(
    settings: Settings, given: MessageFile, out: str, store: PartStore, part_format: PartFormat
) -> tuple[Plan, Mapping[str, MessageFile]]:
    """Return the plan in ``out``, made the first time, and the files by name. Raises
    SettingsError."""
    listed = list_files(given)
    files = {name: file for name, (file, _) in listed.items()}
    if settings.model.adapter is None:
        raise SettingsError("model.adapter is not set: name an adapter's directory or a store")
    wanted = Plan(
        "backfill/1",
        read_manifest(find_adapter(settings.model.adapter).directory).digest,
        {
            "format": given.format,
            "parts": part_format,
            "field": given.field,
            "records": settings.records.model_dump_json(),
            "review": settings.review.model_dump_json(),
            "precision": settings.model.encoder_precision,
        },
        {name: stamp for name, (_, stamp) in listed.items()},
        (),
    )
    path, known = f"{out}/{PLAN}", store.read(PLAN)
    if known is not None:
        try:
            found = TypeAdapter(Plan).validate_json(known)
        except ValidationError as error:
            raise SettingsError(f"{path}: is not a plan of parts: choose another --out") from error
        for what in ("adapter", "options", "files"):
            if getattr(found, what) != getattr(wanted, what):
                raise SettingsError(
                    f"{path}: was made for other {what}: choose another --out, or the same {what} "
                    "as then"
                )
        return found, files
    rows = _count_rows(settings, files)
    parts = [
        (file, first, min(PART_ROWS, count - first))
        for file, count in rows.items()
        for first in range(0, count, PART_ROWS)
    ]
    named = tuple(
        Part(f"part-{number:06}.{part_format}", *part) for number, part in enumerate(parts, 1)
    )
    plan = replace(wanted, parts=named)
    # Several processes may begin at once; each writes the same.
    store.write(PLAN, [TypeAdapter(Plan).dump_json(plan, indent=1)])
    return plan, files


def _count_rows(settings: Settings, files: Mapping[str, MessageFile]) -> dict[str, int]:
    """Read all files once. Raises SettingsError with every file that cannot be read."""
    found, problems = {}, []
    for name, file in files.items():
        try:
            found[name] = sum(1 for _ in rows_of(file, record_layout(settings.records)))
        except SettingsError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError(*problems)
    return found


def _rows_in(
    settings: Settings, files: Mapping[str, MessageFile], parts: Sequence[Part]
) -> Iterator[Row]:
    """Yield the rows of parts; each file is read once, whatever is left out of it."""
    for name, own in groupby(parts, key=lambda part: part.file):
        rows, at = rows_of(files[name], record_layout(settings.records)), 0
        for part in own:
            yield from islice(rows, part.first - at, part.first - at + part.rows)
            at = part.first + part.rows


def _label(
    clerk: Clerk, rows: Iterator[Row], parts: Sequence[Part], store: PartStore
) -> Counter[str]:
    """Label and write parts; return how many rows have a label, a review, or none by reason."""
    counts: Counter[str] = Counter()
    total = sum(part.rows for part in parts)
    # One stream over all parts: the engine does not run empty at the end of each.
    results = with_progress(clerk.answers(rows), total)
    began, done = time.monotonic(), 0
    for part in parts:
        lines = _lines(clerk, part, results, counts)
        store.write(part.name, [as_parquet(lines)] if part.name.endswith("parquet") else lines)
        done += part.rows
        _log_progress(part.name, done, total, began)
    return counts


def _log_progress(part: str, done: int, total: int, began: float) -> None:
    rate = done / (time.monotonic() - began)
    _log.info(
        "backfill.part",
        part=part,
        rows=done,
        of=total,
        rows_per_s=round(rate, 1),
        left_s=round((total - done) / rate),
    )


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
