"""Each kind of number has one form in report, terminal and model card."""

from __future__ import annotations

import pytest

from trainer import numbers


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.percent(0.9534), "95.3%"),
        (numbers.percent(None), "—"),
        (numbers.interval((0.941, 0.963)), "94.1% to 96.3%"),
        (numbers.points(-0.0213), "−2.1 points"),
        (numbers.points(0.0004), "0.0 points"),
        (numbers.points_interval((-0.01, 0.02)), "−1.0 to +2.0"),
        (numbers.counted(2, "entry", "entries"), "2 entries"),
        (numbers.probability(0.0004), "< 0.001"),
        (numbers.duration(0.042), "42 ms"),
        (numbers.duration(2436), "40 min 36 s"),
        (numbers.duration(3600 * 241), "10 d 1 h"),
        (numbers.size(181_954), "182.0 kB"),
        (numbers.significant(0.0002), "0.0002"),
        (numbers.significant(0.00001234), "1.23e−05"),
        (numbers.short("sha256:" + "ab" * 32), "abababababab"),
    ],
)
def test_each_kind_of_number_has_one_form(written: str, expected: str) -> None:
    assert written == expected


def test_a_confidence_below_one_is_never_written_as_certain() -> None:
    assert numbers.sureness(0.99996) == "> 99.9%"
    assert numbers.sureness(0.9994) == "99.9%"
    assert numbers.sureness(1.0) == "100.0%"
