"""``clerk-worker compare``: label the same messages with two adapters and show the differences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from worker.common.review_files import write_review
from worker.contract import Manifest
from worker.contract.records import SupportMessage
from worker.errors import SettingsError
from worker.offline.adapters import resolve_adapter
from worker.offline.classify import Result, label_in_order, with_progress
from worker.offline.message_files import MessageFile, Row, read_rows, record_row
from worker.offline.records import read_range
from worker.policies import kafka_config
from worker.records.types import Classified, Record
from worker.serving import Opener, make_labeller, open_model, record_layout
from worker.settings import Settings
from worker.stream.kafka_reach import check_clients
from worker.stream.topics import RecordRange

SHOWN = 15
"""The most disagreements and moves shown on a terminal; --out writes all of them."""

_DIGEST_CHARS = 12
_COLUMNS = ("id", "first", "first_confidence", "second", "second_confidence", "first_review",
            "second_review")  # fmt: skip


@dataclass(frozen=True, slots=True)
class CompareResult:
    """Both manifests, the messages that both adapters labelled, and the comparison.

    ``source`` describes where the messages came from; ``unlabelled`` counts messages without a
    label from one or both.
    """

    first: Manifest
    second: Manifest
    source: str
    pairs: tuple[Pair, ...]
    unlabelled: int
    comparison: Comparison


def run_compare(
    settings: Settings,
    names: Sequence[str],
    wanted: MessageFile | RecordRange,
    *,
    topic: str | None = None,
    limit: int,
    texts: bool = False,
    opener: Opener = open_model,
) -> CompareResult:
    """Label at most ``limit`` messages with one adapter after the other and compare: only one
    engine runs at a time, so the memory of one is enough.

    ``names`` are two adapters; the messages are those ``wanted``, in a file or in ``topic`` (None:
    the input topic). ``texts`` keeps message texts in the result. Raises WorkerStopped or
    AdapterRefused.
    """
    adapters = [resolve_adapter(name, settings.model.adapter) for name in names]
    if adapters[0].resolve() == adapters[1].resolve():
        raise SettingsError(
            f"{' and '.join(names)} are the same adapter, {adapters[0]}: name two different ones"
        )
    source, rows = read_messages(settings, wanted, topic, limit)
    if not rows:
        raise SettingsError(f"{source}: no messages to compare on: choose another range or file")
    answers = [_label(settings, adapter, rows, opener) for adapter in adapters]
    (first, first_results), (second, second_results) = answers
    pairs = tuple(_pairs(rows, first_results, second_results, texts=texts))
    if not pairs:
        raise SettingsError(
            f"{source}: none of the {len(rows)} messages got a label from both: check --field, or "
            "records.text_fields"
        )
    return CompareResult(first, second, source, pairs, len(rows) - len(pairs), compare(pairs))


def read_messages(
    settings: Settings, wanted: MessageFile | RecordRange, topic: str | None, limit: int
) -> tuple[str, list[Row]]:
    """Return a description of the source, and at most ``limit`` messages."""
    layout = record_layout(settings.records)
    if isinstance(wanted, MessageFile):
        return wanted.source, list(islice(read_rows(wanted, layout), limit))
    config = kafka_config(settings.kafka)
    topic = config.topics.one_input(topic)
    check_clients(config)
    records = read_range(config, topic, wanted, limit)
    found = [record_row(record, layout) for record in records]
    return f"{topic} ({_offsets_read(records)})" if records else topic, found


def _offsets_read(records: Sequence[Record]) -> str:
    """Format the offsets that were read, for --offsets to read the same records again."""
    by_partition: dict[int, list[int]] = {}
    for record in records:
        by_partition.setdefault(record.source.partition, []).append(record.offset)
    return ", ".join(
        f"{partition}:{min(offsets)}-{max(offsets)}"
        for partition, offsets in sorted(by_partition.items())
    )


def _label(
    settings: Settings, adapter: Path, rows: Sequence[Row], opener: Opener
) -> tuple[Manifest, list[Result]]:
    model = settings.model.model_copy(update={"adapter": adapter})
    opened = opener(settings.model_copy(update={"model": model}))
    with closing(opened.engine):
        labeller = make_labeller(settings, opened)
        results = label_in_order(labeller, opened.engine, rows, silence_s=settings.loop.deadline_s)
        shown = with_progress(results, len(rows), opened.manifest.name)
        return opened.manifest, [result for _, result in shown]


def _pairs(
    rows: Sequence[Row], firsts: Sequence[Result], seconds: Sequence[Result], *, texts: bool
) -> Iterator[Pair]:
    for row, first, second in zip(rows, firsts, seconds, strict=True):
        # Without a label from both there is nothing to compare; these are counted as unlabelled.
        if isinstance(first, Classified) and isinstance(second, Classified):
            text = row.message.text if texts and isinstance(row.message, SupportMessage) else None
            yield Pair(row.name, _labelled(first), _labelled(second), row.label, text)


def _labelled(result: Classified) -> Labelled:
    decision = result.decision
    return Labelled(
        decision.label,
        round(decision.confidence, 6),
        None if decision.off_label_mass is None else round(decision.off_label_mass, 6),
        bool(result.review),
    )


@dataclass(frozen=True, slots=True)
class Labelled:
    """One adapter's answer; ``review``: it would go to review."""

    label: str
    confidence: float
    off_label_mass: float | None
    review: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """One message with both answers, and its true label, if known. ``text`` only on request."""

    id: str
    first: Labelled
    second: Labelled
    truth: str | None = None
    text: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether both labels are the same."""
        return self.first.label == self.second.label


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """One adapter's means and shares over all messages; None for a mean over no messages."""

    confidence: float
    off_label_mass: float | None
    review: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Correctness:
    """Both adapters against true labels.

    ``first_only`` counts messages that only the first adapter labelled correctly. ``p_value`` is
    that of McNemar's exact two-sided test (1947) that both are correct equally often.
    """

    messages: int
    both: int
    first_only: int
    second_only: int
    neither: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole comparison. ``moves`` counts messages with two different labels, by first and
    second label."""

    messages: int
    agreed: int
    moves: tuple[tuple[str, str, int], ...]
    first: AdapterSummary
    second: AdapterSummary
    truth: Correctness | None

    @property
    def agreement(self) -> float:
        """Share of the messages with the same label from both."""
        return self.agreed / self.messages


def compare(pairs: Sequence[Pair]) -> Comparison:
    """Compare the answers of two adapters; ``pairs`` must not be empty."""
    moves = Counter((pair.first.label, pair.second.label) for pair in pairs if not pair.agrees)
    return Comparison(
        messages=len(pairs),
        agreed=len(pairs) - moves.total(),
        moves=tuple((first, second, count) for (first, second), count in moves.most_common()),
        first=_summary([(pair.first, pair.truth) for pair in pairs]),
        second=_summary([(pair.second, pair.truth) for pair in pairs]),
        truth=_correctness([pair for pair in pairs if pair.truth is not None]),
    )


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Under the null hypothesis, each message that exactly one adapter labels correctly is the toss of
    a fair coin. 1 without such messages.
    """
    trials = first_only + second_only
    smaller = min(first_only, second_only)
    tail = sum(math.comb(trials, successes) for successes in range(smaller + 1))
    return min(1.0, 2 * tail / (1 << trials))


def _summary(answers: Sequence[tuple[Labelled, str | None]]) -> AdapterSummary:
    masses = [each.off_label_mass for each, _ in answers if each.off_label_mass is not None]
    return AdapterSummary(
        confidence=_mean([each.confidence for each, _ in answers]) or 0.0,
        off_label_mass=_mean(masses),
        review=_mean([each.review for each, _ in answers]) or 0.0,
        accuracy=_mean([each.label == truth for each, truth in answers if truth is not None]),
    )


def _correctness(pairs: Sequence[Pair]) -> Correctness | None:
    if not pairs:
        return None
    correct = Counter(
        (pair.first.label == pair.truth, pair.second.label == pair.truth) for pair in pairs
    )
    first_only, second_only = correct[True, False], correct[False, True]
    return Correctness(
        len(pairs),
        correct[True, True],
        first_only,
        second_only,
        correct[False, False],
        mcnemar(first_only, second_only),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def to_json(result: CompareResult) -> dict[str, Any]:
    """Return everything as plain JSON, with texts if they were kept."""
    comparison = asdict(result.comparison)
    comparison["moves"] = [
        {"first": first, "second": second, "messages": count}
        for first, second, count in result.comparison.moves
    ]
    return {
        "schema": "comparison/1",
        "adapters": {"first": _adapter(result.first), "second": _adapter(result.second)},
        "source": result.source,
        "without_label": result.unlabelled,
        "agreement": result.comparison.agreement,
        **comparison,
        "disagreements": [_row(pair) for pair in _by_confidence(result.pairs)],
    }


def write_csv(path: Path, pairs: Iterable[Pair]) -> int:
    """Write the disagreements, most confident first; return their number. Raises SettingsError.

    The columns ``truth`` and ``text`` exist if any message has them.
    """
    rows = [_row(pair) for pair in _by_confidence(pairs)]
    more = [name for name in ("truth", "text") if any(name in row for row in rows)]
    data = write_review(
        [*_COLUMNS, *more], [{name: str(cell) for name, cell in row.items()} for row in rows]
    )
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SettingsError(f"--out {path}: {error.strerror}") from error
    return len(rows)


def show(result: CompareResult, console: Console) -> None:
    """Print the agreement, the moves between labels, and messages to look at."""
    comparison = result.comparison
    console.print(_head(result))
    if result.unlabelled:
        console.print(f"{result.unlabelled} more have no label from one or both", style="dim")
    console.print()
    console.print(_overall(comparison))
    if comparison.truth is not None:
        console.print(_show_correctness(comparison.truth))
    console.print()
    console.print(_summaries(comparison.first, comparison.second))
    if comparison.moves:
        console.print()
        console.print(_moves(comparison))
        console.print()
        console.print(_disagreements(result.pairs))


def _head(result: CompareResult) -> Text:
    text = Text()
    for name, manifest in (("first ", result.first), ("second", result.second)):
        text.append(f"{name}  ", "bold").append(manifest.name)
        text.append(f"  {manifest.digest[:_DIGEST_CHARS]}  {manifest.created_at}\n", "dim")
    return text.append(f"{result.comparison.messages} messages from {result.source}")


def _overall(comparison: Comparison) -> Text:
    differ = comparison.messages - comparison.agreed
    text = Text().append(f"{comparison.agreement:.1%}", "bold")
    return text.append(f" have the same label from both; {differ} do not")


def _show_correctness(truth: Correctness) -> Text:
    return Text(
        f"Of {truth.messages} with a true label, both are correct on {truth.both}, only the first "
        f"on {truth.first_only}, only the second on {truth.second_only}, neither on "
        f"{truth.neither}. McNemar's exact p = {truth.p_value:.3g}, if messages are independent"
    )


def _summaries(first: AdapterSummary, second: AdapterSummary) -> Table:
    table = _table(("", "left"), ("first", "right"), ("second", "right"), ("points", "right"))
    rows = [
        ("mean confidence", first.confidence, second.confidence),
        ("mean off-label mass", first.off_label_mass, second.off_label_mass),
        ("for review", first.review, second.review),
        ("accuracy", first.accuracy, second.accuracy),
    ]
    for name, before, after in rows:
        if before is not None and after is not None:
            table.add_row(name, f"{before:.1%}", f"{after:.1%}", f"{100 * (after - before):+z.1f}")
    return table


def _moves(comparison: Comparison) -> Table:
    table = _table(("moved from", "left"), ("to", "left"), ("messages", "right"))
    for first, second, count in comparison.moves[:SHOWN]:
        table.add_row(escape(first), escape(second), str(count))
    if len(comparison.moves) > SHOWN:
        table.add_row(f"... and {len(comparison.moves) - SHOWN} more", "", "")
    return table


def _disagreements(pairs: Sequence[Pair]) -> Table:
    differing = _by_confidence(pairs)
    table = _table(("message", "left"), ("first", "left"), ("second", "left"))
    for pair in differing[:SHOWN]:
        message = Text(pair.id)
        if pair.text is not None:
            message.append("\n" + pair.text, "dim")
        table.add_row(message, _answer(pair.first), _answer(pair.second))
    if len(differing) > SHOWN:
        table.add_row(f"... and {len(differing) - SHOWN} more (--out FILE)", "", "")
    return table


def _answer(answer: Labelled) -> Text:
    return Text(answer.label).append(f" {answer.confidence:.0%}", "dim")


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _by_confidence(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the disagreements, with those first in which both adapters are confident: they are
    about a label's meaning rather than about a tie."""
    differing = [pair for pair in pairs if not pair.agrees]
    return sorted(differing, key=lambda pair: -min(pair.first.confidence, pair.second.confidence))


def _row(pair: Pair) -> dict[str, Any]:
    known = {"truth": pair.truth, "text": pair.text}
    return {
        "id": pair.id,
        "first": pair.first.label,
        "first_confidence": pair.first.confidence,
        "second": pair.second.label,
        "second_confidence": pair.second.confidence,
        "first_review": pair.first.review,
        "second_review": pair.second.review,
        **{name: value for name, value in known.items() if value is not None},
    }


def _adapter(manifest: Manifest) -> dict[str, str]:
    return {"name": manifest.name, "digest": manifest.digest, "created_at": manifest.created_at}
