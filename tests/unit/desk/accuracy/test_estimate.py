"""The accuracy in service: published limits, weighting, correction, coverage."""

from __future__ import annotations

import random

import pytest

from desk.accuracy.estimate import (
    Counts,
    Doubled,
    Share,
    Stratum,
    accuracy,
    beta_quantile,
    exact_limits,
    has_fallen,
    krippendorffs_alpha,
    mistakes,
    weighted_share,
    wilson_limits,
)
from tests.bench.desk_accuracy import World, coverage, years

pytestmark = pytest.mark.slow

DOUBTED = Stratum("refund", "a", doubtful=True)
SURE = Stratum("refund", "a", doubtful=False)


def test_beta_quantiles_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for a in (0.5, 3.3, 40, 20_000):
        for b in (0.5, 7, 300.5):
            for probability in (0.001, 0.025, 0.975):
                expected = stats.beta.ppf(probability, a, b)
                assert beta_quantile(probability, a, b) == pytest.approx(expected, abs=1e-10)


def test_limits_of_clopper_and_pearson() -> None:
    """The values of Newcombe 1998 (Two-sided confidence intervals for the single proportion,
    table I): 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, size, low, high in (
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ):
        assert exact_limits(hits / size, size) == pytest.approx((low, high), abs=5e-5)


def test_limits_of_wilson() -> None:
    for hits, size, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        limits = wilson_limits(Share(hits / size, size), 1.959964)
        assert limits == pytest.approx((low, high), abs=5e-5)


def test_a_stratum_counts_by_its_traffic_and_not_by_how_much_of_it_was_decided() -> None:
    """Three times as much of the doubtful tenth was decided."""
    sample = {DOUBTED: Counts(300, 150), SURE: Counts(900, 900)}
    told = weighted_share(sample, {DOUBTED: 1000, SURE: 9000})
    assert told is not None
    assert told.value == pytest.approx(0.95)
    assert told.size <= 1200


def test_a_simple_sample_keeps_its_size() -> None:
    told = weighted_share({SURE: Counts(200, 180)}, {SURE: 10_000})
    assert told is not None
    assert told.value == 0.9
    assert told.size == pytest.approx(200, rel=0.02)


def test_small_strata_are_put_together() -> None:
    """One verdict in a stratum with much traffic does not decide the total."""
    other = Stratum("other", "a", doubtful=False)
    sample = {SURE: Counts(99, 99), other: Counts(1, 0)}
    told = weighted_share(sample, {SURE: 5000, other: 5000})
    assert told is not None
    assert told.value == pytest.approx(0.99)


def test_what_a_replay_made_counts_by_its_chance_of_being_drawn() -> None:
    replayed = Stratum("other", "a", doubtful=False)
    sample = {SURE: Counts(20, 20, 0, 1000.0), replayed: Counts(20, 0, 0, 1000.0)}
    told = weighted_share(sample, {SURE: 3000})
    assert told is not None
    assert told.value == pytest.approx(0.75)


def test_no_verdicts_no_estimate() -> None:
    assert accuracy({}, {SURE: 100}, None) is None


def test_the_correction_is_rogan_and_gladens() -> None:
    """Reviewers wrongly reject 5 % and wrongly accept 10 %: observed 0.866 is 0.901."""
    found = mistakes(
        {
            Doubled(True, 0, 0, 2): 450,
            Doubled(True, 1, 1, 2): 50,
            Doubled(False, 0, 0, 2): 40,
            Doubled(False, 1, 1, 2): 10,
        }
    )
    assert found is not None
    assert (found.rejects.value, found.accepts.value) == (0.05, 0.1)
    told = accuracy({SURE: Counts(1000, 866)}, {SURE: 50_000}, found)
    assert told is not None
    assert told.value == pytest.approx((0.866 - 0.1) / (1 - 0.05 - 0.1))
    assert told.low < told.value < told.high
    bare = accuracy({SURE: Counts(1000, 866)}, {SURE: 50_000}, None)
    assert bare is not None
    assert not bare.corrected
    assert bare.high - bare.low < told.high - told.low  # what is not known of reviewers is in it


def test_checked_verdicts_are_not_corrected() -> None:
    """If two reviewers decided all items, the observed share holds."""
    found = mistakes({Doubled(True, 1, 1, 2): 10, Doubled(True, 0, 0, 2): 90})
    told = accuracy({SURE: Counts(100, 90, checked=100)}, {SURE: 1000}, found)
    assert told is not None
    assert told.value == told.observed == 0.9


def test_reviewers_who_guess_leave_everything_open() -> None:
    found = mistakes({Doubled(True, 1, 1, 2): 60, Doubled(False, 1, 1, 2): 60})
    told = accuracy({SURE: Counts(100, 50)}, {SURE: 1000}, found)
    assert told is not None
    assert (told.low, told.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    "world",
    [
        World(accuracy=0.95, results=2_000, share=0.01, mistaken=0.05),
        World(accuracy=0.9, results=10_000, share=0.02, mistaken=0.05),
        World(accuracy=0.8, results=10_000, share=0.05, mistaken=0.1),
    ],
    ids=str,
)
def test_the_interval_covers_the_true_accuracy(world: World) -> None:
    """At least 94 of 100 over 1,000 weeks of many worlds: tests/bench/desk_accuracy.py. With 200
    weeks, an interval that covers 95 of 100 misses this limit once in 40 times."""
    assert coverage(world, 200).covered >= 184


def test_a_fall_is_told_and_quiet_years_are_quiet() -> None:
    """200 audited a week, 95 % right: 5 points less raise the alert within two weeks."""
    alarms, _ = years(200, 0.95, 0.0, 10)
    assert alarms <= 1
    _, delays = years(200, 0.95, 0.05, 10)
    found = sorted(each for each in delays if each is not None)
    assert len(found) == 10
    assert found[5] <= 14


def test_little_says_nothing() -> None:
    assert not has_fallen(Share(1.0, 40), Share(0.5, 100))
    assert not has_fallen(Share(0.95, 1000), Share(0.0, 5))
    assert has_fallen(Share(0.95, 1000), Share(0.7, 100))


# K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers,
# twelve units, 0 for a value that is missing; nominal alpha is 0.743.
_OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)
# Section B: two observers, ten units, binary; alpha is 0.095.
_BINARY = ((0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0))


def test_alpha_is_that_of_the_paper() -> None:
    """With several observers and missing values, and with two."""
    units = [[value for value in unit if value] for unit in zip(*_OBSERVERS, strict=True)]
    assert krippendorffs_alpha(units) == pytest.approx(0.743, abs=0.0005)
    assert krippendorffs_alpha(list(zip(*_BINARY, strict=True))) == pytest.approx(0.095, abs=5e-4)


def test_it_is_one_for_agreement_and_zero_by_chance() -> None:
    same = [(label, label) for label in "abcab"]
    assert krippendorffs_alpha(same) == pytest.approx(1)
    draw = random.Random(1)
    chance = [(draw.choice("abc"), draw.choice("abc")) for _ in range(20_000)]
    assert krippendorffs_alpha(chance) == pytest.approx(0, abs=0.02)


def test_what_is_not_defined_is_none() -> None:
    assert krippendorffs_alpha([["a"], []]) is None
    assert krippendorffs_alpha([["a", "a"]]) is None
