"""The accuracy's figures as Prometheus metrics, computed at most once a minute."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import structlog
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from desk.accuracy.figures import AccuracyFigures, Measured, Part
from desk.clock import Clock
from desk.errors import TryAgain

_log = structlog.get_logger("desk.accuracy")

MOST_ADAPTERS = 10
MOST_LABELS = 50
"""The most series of a metric; those with the most results are shown."""

NAMES = (
    *(
        f"clerk_desk_{of}{figure}"
        for of in ("", "adapter_", "label_")
        for figure in ("accuracy", "accuracy_low", "accuracy_high", "audited")
    ),
    "clerk_desk_accuracy_fell",
    "clerk_desk_waiting",
    "clerk_desk_waiting_oldest_seconds",
    "clerk_desk_review_hours",
    "clerk_desk_reviewer_mistakes",
    "clerk_desk_agreement_alpha",
)
"""All metrics, in this order."""

# The figures read the audit sample of 119 days, and Prometheus may ask every few seconds.
_KEEP_MS = 60_000

_OF = "of the last 28 days, from the audit sample, weighted to all results and corrected"


class AccuracyMetrics(Collector):
    """Register it: ``registry.register(AccuracyMetrics(lambda: accuracy_figures(desk), now_ms))``.

    A figure without decisions has no series. While the database is unavailable none has.
    """

    def __init__(self, read: Callable[[], AccuracyFigures], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._last: AccuracyFigures | None = None
        self._read_ms = 0

    def describe(self) -> Sequence[Metric]:
        """Register without reading anything."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, a minute old at most. None holds a message's text."""
        with self._lock:
            # Within the lock: two scrapes at once would both read the audit sample of 119 days.
            now_ms = self._clock()
            if self._last is None or now_ms - self._read_ms >= _KEEP_MS:
                try:
                    self._last, self._read_ms = self._read(), now_ms
                except TryAgain as error:
                    # Old figures would look like those of now.
                    self._last = None
                    _log.warning("accuracy.unknown", reason=str(error))
                    return
            figures = self._last
        yield from families(figures)


def families(figures: AccuracyFigures) -> Iterator[Metric]:
    """Return the metrics of these figures."""
    measured = figures.measured
    yield from _accuracy("clerk_desk", "Share of results that are right", {(): measured.recent})
    yield from _accuracy(
        "clerk_desk_adapter",
        "The same by adapter: the first 12 characters of its digest, and its name",
        {
            (part.name[:12], figures.adapter_names.get(part.name, "")): part
            for part in _most(measured.adapters, MOST_ADAPTERS)
        },
        ("adapter", "adapter_name"),
    )
    yield from _accuracy(
        "clerk_desk_label",
        "The same by the label that the machine gave",
        {(part.name,): part for part in _most(measured.labels, MOST_LABELS)},
        ("label",),
    )
    yield _gauge(
        "clerk_desk_accuracy_fell",
        "1 where the accuracy of the last days is lower than in the 91 days before the last 28, "
        "and not by chance.",
        ("window_days",),
        {(str(fall.window_days),): float(fall.fell) for fall in measured.falls},
    )
    yield from _queue_and_cost(figures)


def _queue_and_cost(figures: AccuracyFigures) -> Iterator[Metric]:
    kinds = ("origin", "state")
    waiting = {(each.origin, each.state): each for each in figures.waiting}
    yield _gauge(
        "clerk_desk_waiting",
        "Items that wait for people, by why they are here and where they stand.",
        kinds,
        {key: float(each.items) for key, each in waiting.items()},
    )
    yield _gauge(
        "clerk_desk_waiting_oldest_seconds",
        "Age of the oldest of them.",
        kinds,
        {key: each.oldest_s for key, each in waiting.items()},
    )
    yield _gauge(
        "clerk_desk_review_hours",
        "Hours that items were on reviewers' screens within the last 28 days.",
        ("origin",),
        {(origin,): hours for origin, hours in figures.cost.hours.items()},
    )
    yield from _people(figures.measured, figures.agreement.alpha)


def _people(measured: Measured, alpha: float | None) -> Iterator[Metric]:
    if measured.mistakes is not None:
        yield _gauge(
            "clerk_desk_reviewer_mistakes",
            "Share of single opinions that were not what was settled, on audit items that two "
            "people decided, of the last 119 days.",
            (),
            {(): measured.mistakes.any.value},
        )
    if alpha is not None:
        help_ = "Krippendorff's alpha of what several people decided, of the last 119 days."
        yield _gauge("clerk_desk_agreement_alpha", help_, (), {(): alpha})


def _accuracy(
    prefix: str,
    what: str,
    parts: dict[tuple[str, ...], Part],
    names: tuple[str, ...] = (),
) -> Iterator[Metric]:
    known = {key: part.accuracy for key, part in parts.items() if part.accuracy is not None}
    told = f"{what}, {_OF}"
    values = {key: each.value for key, each in known.items()}
    yield _gauge(f"{prefix}_accuracy", f"{told}.", names, values)
    low = {key: each.low for key, each in known.items()}
    yield _gauge(f"{prefix}_accuracy_low", "Lower limit of its 95 % interval.", names, low)
    high = {key: each.high for key, each in known.items()}
    yield _gauge(f"{prefix}_accuracy_high", "Upper limit of its 95 % interval.", names, high)
    audited = {key: float(each.verdicts) for key, each in known.items()}
    yield _gauge(f"{prefix}_audited", "Audited results that it stands on.", names, audited)


def _gauge(
    name: str, help_: str, names: tuple[str, ...], values: dict[tuple[str, ...], float]
) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=names)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _most(parts: Sequence[Part], count: int) -> list[Part]:
    return sorted(parts, key=lambda part: (-part.results, part.name))[:count]
