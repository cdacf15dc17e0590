"""Drift as the loop goes: log lines, metrics and what ``/info`` says of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog

from worker.contract import Manifest
from worker.core.assignment import CompletedRecord
from worker.core.events import NullListener
from worker.observe import metrics as named
from worker.observe.drift.baseline import DriftPolicy, make_yardstick
from worker.observe.drift.detector import DriftDetector, LabelShift, Report, Signal
from worker.observe.registry import MetricSample
from worker.records.types import Classified

_log = structlog.get_logger("worker.observe.drift")

_DIGITS = 4


class DriftListener(NullListener):
    """See ``worker.core.events.Listener``. Watches the answers of the adapter that ``main`` gives:
    what a canary answers is left out, and with another main adapter everything begins anew.

    Counts are this worker's alone, of the partitions it holds. ``readings`` and ``info`` may be
    called from any thread.
    """

    def __init__(self, policy: DriftPolicy, main: Callable[[], Manifest]) -> None:
        self._policy = policy
        self._main = main
        self._digest: str | None = None
        self._watch: DriftDetector | None = None
        self._last: Report | None = None
        self._windows: dict[tuple[Signal, str], int] = {}
        self._follow()

    def _follow(self) -> None:
        """Watch the main adapter of this moment; nothing where it has no reference."""
        manifest = self._main()
        if self._digest == manifest.digest:
            return
        yardstick = make_yardstick(manifest, self._policy)
        self._digest = manifest.digest
        self._last = None
        if yardstick is None:
            self._watch = None
            _log.info(
                "drift.off",
                adapter=manifest.name,
                adapter_digest=manifest.digest[:12],
                why="its manifest has no reference to compare with: trained before there was one",
            )
            return
        draw = random.Random(yardstick.digest)  # noqa: S311 - a sample, no secret
        self._watch = DriftDetector(yardstick, self._policy.window, self._policy.sample_ids, draw)
        signals: list[Signal] = ["labels"] if yardstick.mass is None else ["labels", "off_label"]
        for signal in signals:
            for result in named.WINDOW_RESULTS:
                self._windows.setdefault((signal, result), 0)

    def published(self, batch: Sequence[CompletedRecord], seconds: float) -> None:
        """Count the labels; judge a window when it is full."""
        del seconds
        self._follow()
        watch = self._watch
        if watch is None:
            return
        for one in batch:
            if isinstance(one.outcome, Classified) and one.adapter.digest == self._digest:
                decision = one.outcome.decision
                report = watch.add(decision.label, decision.off_label_mass, one.record.id)
                if report is not None:
                    self._take(watch, report)

    def readings(self) -> Iterator[MetricSample]:
        """Give the last whole window, and the levels it is held against."""
        watch, last = self._watch, self._last
        if watch is None:
            return
        yardstick = watch.yardstick
        levels: list[tuple[tuple[str, ...], float]] = [(("labels",), yardstick.psi_level)]
        if yardstick.mass is not None:
            levels.append((("off_label",), yardstick.off_label_level))
        yield named.DRIFT_LEVEL, levels
        yield named.DRIFT_WINDOWS, [(key, count) for key, count in sorted(self._windows.items())]
        if last is None:
            return
        yield named.DRIFT_PSI, [((), last.psi)]
        yield named.DRIFT_SHIFT, [((one.label,), one.share - one.expected) for one in last.shifts]
        if last.off_label_share is not None:
            yield named.DRIFT_OFF_LABEL, [((), last.off_label_share)]
        yield named.DRIFT_IN_A_ROW, [((one,), count) for one, count in last.in_a_row.items()]

    def info(self) -> Any:
        """Return what JSON can carry: levels and the last whole window; None while off."""
        watch, last = self._watch, self._last
        if watch is None:
            return None
        yardstick = watch.yardstick
        return {
            "adapter_digest": yardstick.digest,
            "window": self._policy.window,
            "messages": watch.messages,
            "label_psi_level": round(yardstick.psi_level, _DIGITS),
            "off_label_share_level": (
                None if yardstick.mass is None else round(yardstick.off_label_level, _DIGITS)
            ),
            "last": None if last is None else _window_info(last),
        }

    def _take(self, watch: DriftDetector, report: Report) -> None:
        before = self._last.in_a_row if self._last is not None else {}
        self._last = report
        for signal, in_a_row in report.in_a_row.items():
            key = (signal, "drifted" if in_a_row else "stable")
            self._windows[key] = self._windows.get(key, 0) + 1
            if in_a_row:
                # The 1st, 2nd, 4th, 8th... in a row: what lasts is told, and less and less often.
                if in_a_row & (in_a_row - 1) == 0:
                    _tell(watch, report, signal, in_a_row)
            elif lasted := before.get(signal, 0):
                _log.info("drift.ended", signal=signal, windows=lasted)


def _tell(watch: DriftDetector, report: Report, signal: Signal, in_a_row: int) -> None:
    fields: dict[str, Any] = {
        "adapter_digest": watch.yardstick.digest[:12],
        "messages": report.messages,
        "windows_in_a_row": in_a_row,
    }
    if samples := report.samples[signal]:
        fields["sample"] = list(samples)
    if signal == "labels":
        _log.warning(
            "drift.labels",
            psi=round(report.psi, _DIGITS),
            level=round(watch.yardstick.psi_level, _DIGITS),
            moved=_shares(report.moved),
            **fields,
        )
    else:
        _log.warning(
            "drift.off_label",
            share=round(report.off_label_share or 0.0, _DIGITS),
            level=round(watch.yardstick.off_label_level, _DIGITS),
            **fields,
        )


def _window_info(report: Report) -> Any:
    return {
        "label_psi": round(report.psi, _DIGITS),
        "off_label_share": (
            None if report.off_label_share is None else round(report.off_label_share, _DIGITS)
        ),
        "drifted_windows_in_a_row": dict(report.in_a_row),
        "moved": _shares(report.moved),
        "samples": {signal: list(ids) for signal, ids in report.samples.items() if ids},
    }


def _shares(shifts: Sequence[LabelShift]) -> dict[str, dict[str, float]]:
    return {
        one.label: {"share": round(one.share, _DIGITS), "expected": round(one.expected, _DIGITS)}
        for one in shifts
    }
