"""Drift while the loop runs: log lines, metrics, and the ``drift`` section of ``/info``."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog

from worker.contract import Manifest
from worker.core.events import LoopEvent, Published
from worker.observe.drift import metrics as named
from worker.observe.drift.baseline import DriftBaseline, DriftPolicy, make_baseline
from worker.observe.drift.detector import DriftDetector, LabelShift, Signal, WindowReport
from worker.observe.registry import MetricSample
from worker.records.types import Classified

_log = structlog.get_logger("worker.drift")

_DIGITS = 4


class DriftListener:
    """A listener of the loop that watches the answers of the adapter ``main`` returns.

    A canary's answers are left out, and another main adapter begins a new window, as soon as its
    baseline is worked out: that takes the better part of a second, and the loop does not wait for
    it. ``in_background`` has it done; the first one is worked out before this returns.

    Counts are those of this worker alone, of the partitions it holds. ``metric_samples`` and
    ``info`` may be called from any thread.
    """

    def __init__(
        self,
        main: Callable[[], Manifest],
        policy: DriftPolicy | None = None,
        in_background: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._policy = policy or DriftPolicy()
        self._main = main
        self._in_background = in_background or _on_a_thread
        self._digest: str | None = None
        self._wanted: str | None = None
        # The adapter's digest beside its baseline: seen whole, whichever thread sets it.
        self._made: tuple[str, DriftBaseline | None] | None = None
        self._detector: DriftDetector | None = None
        self._last: WindowReport | None = None
        self._windows: dict[tuple[Signal, str], int] = {}
        manifest = main()
        self._watch(manifest, make_baseline(manifest, self._policy))

    def _follow(self) -> None:
        """Watch the current main adapter, once there is what to compare it with."""
        manifest = self._main()
        if self._digest == manifest.digest:
            return
        if self._wanted != manifest.digest:
            self._wanted = manifest.digest
            self._in_background(lambda: self._make(manifest))
        made = self._made
        if made is not None and made[0] == manifest.digest:
            self._made = self._wanted = None
            self._watch(manifest, made[1])

    def _make(self, manifest: Manifest) -> None:
        self._made = (manifest.digest, make_baseline(manifest, self._policy))

    def _watch(self, manifest: Manifest, baseline: DriftBaseline | None) -> None:
        """Begin a window of this adapter; nothing is watched where it has no reference."""
        self._digest = manifest.digest
        self._last = None
        if baseline is None:
            self._detector = None
            _log.info(
                "drift.off",
                adapter=manifest.name,
                adapter_digest=manifest.digest[:12],
                why="the adapter's manifest has no reference",
            )
            return
        draw = random.Random(baseline.digest)  # noqa: S311 - a sample, no secret
        self._detector = DriftDetector(baseline, self._policy.window, self._policy.sample_ids, draw)
        signals: list[Signal] = ["labels"] if baseline.mass is None else ["labels", "off_label"]
        for signal in signals:
            for result in named.WINDOW_RESULTS:
                self._windows.setdefault((signal, result), 0)

    def __call__(self, event: LoopEvent) -> None:
        """Count the labels that were published; judge a window when it is full."""
        if not isinstance(event, Published):
            return
        self._follow()
        detector = self._detector
        if detector is None:
            return
        for completed in event.batch:
            outcome = completed.outcome
            if isinstance(outcome, Classified) and completed.adapter.digest == self._digest:
                decision = outcome.decision
                report = detector.add(decision.label, decision.misfit, completed.record.id)
                if report is not None:
                    self._take(detector, report)

    def metric_samples(self) -> Iterator[MetricSample]:
        """Yield the figures of the last full window, and the thresholds."""
        detector, last = self._detector, self._last
        if detector is None:
            return
        baseline = detector.baseline
        thresholds: list[tuple[tuple[str, ...], float]] = [(("labels",), baseline.psi_threshold)]
        if baseline.mass is not None:
            thresholds.append((("off_label",), baseline.off_label_threshold))
        yield named.DRIFT_THRESHOLD, thresholds
        yield named.DRIFT_WINDOWS, [(key, count) for key, count in sorted(self._windows.items())]
        if last is None:
            return
        yield named.DRIFT_PSI, [((), last.psi)]
        yield (
            named.DRIFT_SHIFT,
            [((shift.label,), shift.share - shift.expected) for shift in last.shifts],
        )
        if last.off_label_ratio is not None:
            yield named.DRIFT_OFF_LABEL, [((), last.off_label_ratio)]
        yield (
            named.DRIFT_CONSECUTIVE,
            [((signal,), count) for signal, count in last.consecutive.items()],
        )

    def info(self) -> Any:
        """Return thresholds and the last full window as plain JSON; None while drift is off."""
        detector, last = self._detector, self._last
        if detector is None:
            return None
        baseline = detector.baseline
        return {
            "adapter_digest": baseline.digest,
            "window": self._policy.window,
            "messages": detector.messages,
            "label_psi_threshold": round(baseline.psi_threshold, _DIGITS),
            "off_label_ratio_threshold": (
                None if baseline.mass is None else round(baseline.off_label_threshold, _DIGITS)
            ),
            "last": None if last is None else _window_info(last),
        }

    def _take(self, detector: DriftDetector, report: WindowReport) -> None:
        before = self._last.consecutive if self._last is not None else {}
        self._last = report
        for signal, consecutive in report.consecutive.items():
            key = (signal, "drifted" if consecutive else "stable")
            self._windows[key] = self._windows.get(key, 0) + 1
            if consecutive:
                # The 1st, 2nd, 4th, 8th... of consecutive windows: what lasts is logged less often.
                if consecutive & (consecutive - 1) == 0:
                    _warn(detector, report, signal, consecutive)
            elif lasted := before.get(signal, 0):
                _log.info("drift.ended", signal=signal, windows=lasted)


def _on_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="drift-baseline", daemon=True).start()


def _warn(detector: DriftDetector, report: WindowReport, signal: Signal, consecutive: int) -> None:
    fields: dict[str, Any] = {
        "adapter_digest": detector.baseline.digest[:12],
        "messages": report.messages,
        "consecutive_windows": consecutive,
    }
    if samples := report.samples[signal]:
        fields["sample"] = list(samples)
    if signal == "labels":
        _log.warning(
            "drift.labels",
            psi=round(report.psi, _DIGITS),
            threshold=round(detector.baseline.psi_threshold, _DIGITS),
            moved=_shares(report.moved),
            **fields,
        )
    else:
        _log.warning(
            "drift.off_label",
            ratio=round(report.off_label_ratio or 0.0, _DIGITS),
            threshold=round(detector.baseline.off_label_threshold, _DIGITS),
            **fields,
        )


def _window_info(report: WindowReport) -> Any:
    return {
        "label_psi": round(report.psi, _DIGITS),
        "off_label_ratio": (
            None if report.off_label_ratio is None else round(report.off_label_ratio, _DIGITS)
        ),
        "consecutive_drifted_windows": dict(report.consecutive),
        "moved": _shares(report.moved),
        "samples": {signal: list(ids) for signal, ids in report.samples.items() if ids},
    }


def _shares(shifts: Sequence[LabelShift]) -> dict[str, dict[str, float]]:
    return {
        shift.label: {
            "share": round(shift.share, _DIGITS),
            "expected": round(shift.expected, _DIGITS),
        }
        for shift in shifts
    }
