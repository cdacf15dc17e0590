"""``clerk-worker verify``: read a range of the input and all results, and report violations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.common.bucket import url_of
from worker.common.mirror import StoreMirror
from worker.contract.errors import RecordRefused
from worker.contract.records import read_retry
from worker.contract.store import stored_digests
from worker.errors import SettingsError
from worker.offline.adapters import store_of
from worker.offline.records import (
    Offsets,
    ScanProgress,
    has_no_result,
    is_of_another_cluster,
    read_result,
    wanted_offsets,
    whole_logs,
)
from worker.offline.verify_check import (
    FAULTS,
    Checker,
    Fault,
    Place,
    Result,
    RetryRecord,
    Span,
    Verdict,
)
from worker.policies import kafka_config
from worker.records.types import Record, TopicPartition
from worker.settings import Settings
from worker.stream.kafka_scan import LogSpan, TopicScanner
from worker.stream.kafka_topics import is_compacted
from worker.stream.topics import RecordRange, Topics

_DIGEST_CHARS = 12
MEANING: dict[Fault, str] = {
    "missing": "input records without a result",
    "twice": "results beyond the first for one input record, in one run",
    "out_of_order": "results after that of a later record of the same input partition",
    "foreign": "results for input records that do not exist",
    "unreadable": "records on a result topic that no worker writes",
    "unknown_adapter": "results by an adapter that was not in service",
}


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdict and its scope.

    ``offsets`` are by input partition the first judged offset and the one after the last.
    ``pending`` counts offsets of the range that the group has not committed yet, including
    transaction markers. ``adapters`` are the allowed adapters, None for any.
    """

    topic: str
    group: str
    offsets: Mapping[int, tuple[int, int]]
    pending: int
    adapters: tuple[str, ...] | None
    verdict: Verdict


def run_verify(
    settings: Settings,
    records: RecordRange | None = None,
    *,
    adapters: Sequence[str] = (),
    max_offenders: int = 10,
    topic: str | None = None,
) -> Verification:
    """Compare the input with its results. Works while workers run. Raises WorkerStopped.

    ``records`` None means everything that the group has committed. ``adapters`` are prefixes of the
    allowed adapters' digests; without any, the adapters in the store of ``model.adapter`` are
    allowed, or without a store all. At most ``max_offenders`` of each fault are reported. ``topic``
    is the input topic if there are several; each is verified separately.

    Only offsets committed before anything else is read are judged: all their results are written
    by then. Those of a transaction committed a moment ago may not be visible yet, and the scanner
    waits for them.
    """
    config = kafka_config(settings.kafka)
    topics = config.topics
    allowed = tuple(adapters) or _stored_adapters(settings)
    topic = topics.one_input(topic)
    compacted = is_compacted(config, topic)
    with TopicScanner(config) as scanner, ScanProgress() as progress:
        committed = scanner.committed(list(scanner.spans(topic)))
        retried = scanner.committed(list(scanner.spans(topics.retry))) if topics.retry else {}
        written = whole_logs(scanner, topics.results)
        # After the results' ends, so that each retry that led to a result is seen.
        retries = whole_logs(scanner, (topics.retry,) if topics.retry else ())
        # After the results' ends, so that no result is for an offset beyond these.
        logs = scanner.spans(topic)
        _expect_a_commit(settings.kafka.group_id, topic, committed, logs)
        wanted = wanted_offsets(scanner, records, logs)
        ranges = {
            source: (start, max(start, min(stop, committed.get(source, start))))
            for source, (start, stop) in wanted.items()
        }
        checker = Checker(
            _spans(ranges, logs),
            adapters=allowed,
            compacted=compacted,
            # Readers of at_least_once deduplicate by id.
            repeats_allowed=config.delivery == "at_least_once",
            max_offenders=max_offenders,
        )
        for record in progress.read(scanner, topic, ranges):
            if not has_no_result(record, settings.records.tombstones):
                checker.add_input(record.source, record.offset)
        for source, log in scanner.spans(topic).items():
            checker.forget_before(source, log.start)
        for retry_topic, offsets in retries.items():
            for record in progress.read(scanner, retry_topic, offsets):
                _take_retry(checker, record, topics, topic, retried)
        for result_topic, offsets in written.items():
            for record in progress.read(scanner, result_topic, offsets):
                _take_result(checker, record, topics, topic, config.cluster)
    return Verification(
        topic,
        settings.kafka.group_id,
        {
            source.partition: (span.start, span.stop)
            for source, span in checker.spans.items()
            if source in ranges
        },
        sum(stop - ranges[source][1] for source, (_, stop) in wanted.items()),
        allowed,
        checker.verdict(),
    )


def _spans(ranges: Offsets, logs: Mapping[TopicPartition, LogSpan]) -> dict[TopicPartition, Span]:
    """Give partitions outside of the range an empty span, so that their results are not judged."""
    return {
        source: Span(*ranges.get(source, (log.end, log.end)), log.end)
        for source, log in logs.items()
    }


def _take_retry(
    checker: Checker,
    record: Record,
    topics: Topics,
    input_topic: str,
    committed: Mapping[TopicPartition, int],
) -> None:
    place = Place(record.source, record.offset)
    try:
        retry = read_retry(record.headers)
    except RecordRefused as error:
        checker.add_unreadable(place, str(error))
        return
    if retry.topic != input_topic and topics.is_input(retry.topic):
        return  # for another input topic, which is verified separately
    source = TopicPartition(retry.topic, retry.partition)
    waits = record.offset >= committed.get(record.source, 0)
    checker.add_retry(RetryRecord(source, retry.offset, retry.attempt, waits, place))


def _take_result(
    checker: Checker, record: Record, topics: Topics, input_topic: str, cluster: str | None
) -> None:
    place = Place(record.source, record.offset)
    if record.value is None and record.source.topic != topics.dead_letter:
        return  # a forwarded tombstone, which does not name its input record
    try:
        read = read_result(record, topics.dead_letter)
    except RecordRefused as error:
        checker.add_unreadable(place, str(error))
        return
    if read.source.topic == topics.retry:
        return  # the dead letter of a malformed retry record, which was reported there
    if read.source.topic != input_topic and topics.is_input(read.source.topic):
        return  # for another input topic, which is verified separately
    if is_of_another_cluster(read, cluster):
        return  # for a message with the same topic and offset in another cluster
    replay = read.replay.id if read.replay is not None else None
    checker.add_result(
        Result(read.source, read.offset, read.adapter_digest, replay, place, read.precision)
    )


def _stored_adapters(settings: Settings) -> tuple[str, ...] | None:
    store = store_of(settings.model.adapter) if settings.model.adapter is not None else None
    if store is None:
        return None
    return tuple(StoreMirror(store).digests() if url_of(store) else stored_digests(store))


def _expect_a_commit(
    group: str,
    topic: str,
    committed: Mapping[TopicPartition, int],
    logs: Mapping[TopicPartition, LogSpan],
) -> None:
    if not committed and any(log.start < log.end for log in logs.values()):
        raise SettingsError(
            f"the group {group} has committed nothing of {topic}: set kafka.group_id to that of "
            "the workers"
        )


def to_json(verification: Verification) -> dict[str, Any]:
    """Return the whole verification as plain JSON."""
    verdict = asdict(verification.verdict)
    return {
        "schema": "verification/1",
        "proven": verification.verdict.is_proven,
        "topic": verification.topic,
        "group": verification.group,
        "offsets": {
            str(number): {"from": start, "before": stop}
            for number, (start, stop) in verification.offsets.items()
        },
        "pending": verification.pending,
        "allowed_adapters": verification.adapters,
        **verdict,
        "offenders": [asdict(offender) for offender in verification.verdict.offenders],
    }


def show(verification: Verification, console: Console) -> None:
    """Print counts, offenders, and the verdict last."""
    verdict = verification.verdict
    ranges = ", ".join(
        f"{number}:{start}-{stop - 1}"
        for number, (start, stop) in verification.offsets.items()
        if start < stop
    )
    console.print(f"{verification.topic} ({ranges or 'empty'}), group {verification.group}")
    console.print(f"  input records   {verdict.inputs:>12,}")
    for topic, count in verdict.by_topic.items():
        console.print(f"  {topic:<15} {count:>12,} results")
    for what, count in (
        ("of replays", verdict.replayed),
        ("records of the retry topic", verdict.retries),
        ("input records waiting there for another attempt (pending)", verdict.waiting),
        ("repeated, allowed by at_least_once", verdict.repeated),
        ("not judged: outside of the range", verdict.outside),
        ("not judged: dropped by compaction of the input", verdict.compacted),
        ("offsets not committed yet (pending)", verification.pending),
    ):
        if count:
            console.print(f"  {what}: {count:,}")
    if verdict.adapters:
        by = (
            f"{each.digest[:_DIGEST_CHARS]} in {each.precision} {each.results:,}"
            if each.precision
            else f"{each.digest[:_DIGEST_CHARS]} (dead letters) {each.results:,}"
            for each in verdict.adapters
        )
        allowed = "" if verification.adapters is not None else " (all adapters are allowed)"
        console.print(f"  adapters: {', '.join(by)}{allowed}")
    if verdict.is_proven:
        waits = ", or waits for another attempt" if verdict.waiting else ""
        order = "in order" if not verdict.retries else "in order except for later attempts"
        console.print(
            f"[green]proven[/green]: every input record has exactly one result{waits}, {order}"
        )
        return
    table = Table("fault", "id", "result at", "problem", box=None)
    for offender in verdict.offenders:
        known = (offender.id, offender.place, offender.problem)
        table.add_row(offender.fault, *(text and escape(text) for text in known))
    console.print(table)
    for fault in FAULTS:
        if count := verdict.faults[fault]:
            console.print(f"[red]{fault}[/red]: {count:,} {MEANING[fault]}")
