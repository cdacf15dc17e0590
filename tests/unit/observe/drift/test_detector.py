"""Window after window: what is counted, what moved, and which records are told."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tests.support.toy_adapter import LABELS
from worker.observe.drift.baseline import DriftBaseline
from worker.observe.drift.detector import DriftDetector, WindowReport

BASELINE = DriftBaseline("d" * 64, dict.fromkeys(LABELS, 1 / 3), 0.05, 0.1, 0.2)


def make_detector(
    baseline: DriftBaseline = BASELINE, window: int = 30, sample_ids: int = 3
) -> DriftDetector:
    return DriftDetector(baseline, window, sample_ids, random.Random(1))


def feed(
    detector: DriftDetector, labels: Sequence[str], mass: float | None = 0.0
) -> list[WindowReport]:
    """Add these answers; return the reports that came of it."""
    reports = [detector.add(name, mass, f"in-0-{at}") for at, name in enumerate(labels)]
    return [report for report in reports if report is not None]


EVEN = [*LABELS] * 10
BILLING = ["billing"] * 20 + ["delivery", "other"] * 5


def test_a_window_is_judged_when_it_is_full_and_the_next_begins_empty() -> None:
    """Two and a half windows make two reports."""
    detector = make_detector()
    [first, second] = feed(detector, EVEN * 2 + EVEN[:15])
    assert detector.messages == 15
    for report in (first, second):
        assert report.messages == 30
        assert report.psi == 0
        assert report.off_label_ratio == 0
        assert report.consecutive == {"labels": 0, "off_label": 0}
        assert report.samples == {"labels": (), "off_label": ()}
        assert {shift.label: shift.share for shift in report.shifts} == dict.fromkeys(LABELS, 1 / 3)


def test_what_moved_is_named_with_its_share_and_its_part() -> None:
    """The fewest labels that make up most of the shift, the largest first."""
    [report] = feed(make_detector(), BILLING)
    assert report.psi > 0.05
    assert report.consecutive["labels"] == 1
    assert report.moved[0].label == "billing"
    assert report.moved[0].share == pytest.approx(2 / 3)
    assert report.moved[0].expected == pytest.approx(1 / 3)
    assert report.psi == pytest.approx(sum(shift.psi for shift in report.shifts))
    parts = [shift.psi for shift in report.moved]
    assert parts == sorted(parts, reverse=True)
    assert sum(parts) >= 0.8 * report.psi > sum(parts[:-1])


def test_consecutive_drifted_windows_are_counted_and_a_stable_one_ends_them() -> None:
    """One may be chance; two consecutive ones are not."""
    reports = feed(make_detector(), BILLING * 3 + EVEN + BILLING)
    assert [report.consecutive["labels"] for report in reports] == [1, 2, 3, 0, 1]


def test_off_label_mass_is_a_signal_of_its_own() -> None:
    """Labels as ever, and a fifth of the messages far from each of them."""
    detector = make_detector()
    for at, name in enumerate(EVEN):
        report = detector.add(name, 0.5 if at % 5 == 0 else 0.1, f"in-0-{at}")
    assert report is not None
    assert report.off_label_ratio == 0.2
    assert report.consecutive == {"labels": 0, "off_label": 1}
    assert len(report.samples["off_label"]) == 3
    assert all(int(name.rpartition("-")[2]) % 5 == 0 for name in report.samples["off_label"])


def test_without_a_mass_to_tell_only_the_labels_are_watched() -> None:
    """Choice decoding knows no mass."""
    detector = make_detector(DriftBaseline("d" * 64, BASELINE.shares, 0.05, None, 1.0))
    [report] = feed(detector, EVEN, mass=None)
    assert report.off_label_ratio is None
    assert report.consecutive == {"labels": 0}


def test_samples_are_of_what_came_too_often_and_no_more_than_asked_for() -> None:
    """Ids of records with the label that grew, spread over the window."""
    [report] = feed(make_detector(), BILLING)
    ids = [int(name.rpartition("-")[2]) for name in report.samples["labels"]]
    assert len(set(ids)) == 3
    assert all(BILLING[at] == "billing" for at in ids)
    [report] = feed(make_detector(sample_ids=0), BILLING)
    assert report.samples == {"labels": (), "off_label": ()}
    late = [feed(DriftDetector(BASELINE, 30, 3, random.Random(n)), BILLING)[0] for n in range(20)]
    last = {int(name.rpartition("-")[2]) for report in late for name in report.samples["labels"]}
    assert max(last) > 15, "the first ones are not always taken"


def test_two_labels_that_grew_share_the_sample() -> None:
    """A reviewer sees both."""
    labels = ["billing"] * 14 + ["delivery"] * 16
    [report] = feed(make_detector(sample_ids=4), labels)
    kinds = [labels[int(name.rpartition("-")[2])] for name in report.samples["labels"]]
    assert sorted(kinds) == ["billing", "billing", "delivery", "delivery"]


def test_a_label_that_is_not_this_adapters_is_not_counted() -> None:
    """Right after a swap a late answer of the one before may come."""
    detector = make_detector()
    assert feed(detector, ["elsewhere"] * 100) == []
    assert detector.messages == 0
