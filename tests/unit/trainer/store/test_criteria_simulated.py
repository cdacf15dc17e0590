"""The gate in simulations with known truth: how often does it refuse good adapters and pass bad
ones?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from tests.bench.judges_worlds import draw_pair, make_groups
from tests.bench.successions import (
    Outcome,
    draw_series,
    run_series,
    share_of_seeds,
    worlds,
)
from trainer.statistics.figures import Figures, LabelFigures
from trainer.statistics.metrics import Discordance, count_discordant, mcnemar_exact
from trainer.statistics.paired import non_inferiority_p
from trainer.store.gate import CURRENT, judge_comparison, judge_labels
from trainer.store.rules import Comparison, GateRules

pytestmark = pytest.mark.slow

RUNS = 400
LABELS = tuple(f"label-{number}" for number in range(11))
LOWER = GateRules()


def share_refused(rules: GateRules, recalls: Sequence[float], per_label: int) -> float:
    """Return the exact share of runs in which a label fails, for adapters with these true
    recalls."""
    failing = []
    for hits in range(per_label + 1):
        figures = tuple(LabelFigures(name, 1, hits / per_label, 1, per_label) for name in LABELS)
        settled = Figures(per_label, 1.0, (0.0, 1.0), 1.0, figures, ())
        if not next(iter(judge_labels(LABELS, settled, rules))).passed:
            failing.append(hits)
    passed = 1 - binom.pmf(np.array(failing)[:, None], per_label, recalls).sum(axis=0)
    return 1 - float(passed.prod())


@pytest.mark.parametrize("per_label", [8, 19, 30, 136])
def test_a_run_with_one_label_at_the_floor_passes_once_in_twenty_times_at_most(
    per_label: int,
) -> None:
    """However few messages there are. When the gate had to show that a label is bad, a label with
    recall 0.5 passed in 82 % of runs with 19 messages."""
    assert share_refused(LOWER, [0.6, *[1.0] * 10], per_label) >= 0.95
    assert share_refused(LOWER, [0.5, *[1.0] * 10], per_label) >= 0.98


def test_good_labels_pass_with_thirty_messages_each() -> None:
    """Nine times in ten with a recall of 90 %; eight messages are not enough."""
    assert share_refused(LOWER, [0.9] * 11, 30) < 0.1
    assert share_refused(LOWER, [0.9] * 11, 8) > 0.5


def share_passed(*, worse: float, messages: int, discordance: float = 0.03) -> float:
    """Return how often a new adapter passes that is truly ``worse`` than the current one."""
    rng = np.random.default_rng(6)
    shares = [(discordance - worse) / 2, (discordance + worse) / 2, 1 - discordance]
    passed = 0
    for new, current, _ in rng.multinomial(messages, shares, size=RUNS).tolist():
        p = mcnemar_exact(Discordance(new, current, messages))
        against = Comparison(
            current_digest="ab" * 32,
            holdout_sha256="cd" * 32,
            messages=messages,
            only_new_right=new,
            only_current_right=current,
            p_value=p,
            turn=1,
        )
        [row] = judge_comparison(against, GateRules(), CURRENT)
        passed += row.passed
    return passed / RUNS


def test_an_adapter_that_is_worse_by_the_margin_passes_once_in_twenty_times_at_most() -> None:
    """With 800 messages and with 200: too few of them prove nothing."""
    for messages in (200, 800):
        assert share_passed(worse=0.02, messages=messages) <= 0.05


def test_one_that_is_as_good_passes_nine_times_in_ten_with_1000_messages() -> None:
    """If the two differ in being right on 3 % of messages, as config/gate.toml says."""
    assert share_passed(worse=0.0, messages=1000) > 0.89


def test_in_threads_it_passes_once_in_twenty_times_at_most_too() -> None:
    """Groups of five to ten messages, right and wrong together (latent correlation 0.6). Counted as
    independent, the same answers pass three times as often."""
    rng = np.random.default_rng(8)
    now = before = 0
    for _ in range(RUNS):
        groups = make_groups(rng, 800)
        new, current = draw_pair(rng, 0.02, 0.05, 800, groups)
        counts = count_discordant(new, current, groups)
        now += non_inferiority_p(counts, 0.02) < 0.05
        before += non_inferiority_p(replace(counts, effect=1.0), 0.02) < 0.05
    assert now / RUNS <= 0.05 + 2 * (0.05 * 0.95 / RUNS) ** 0.5
    assert before / RUNS > 0.1


def run_chains(name: str, *, anchored: bool = True) -> list[Outcome]:
    """Twenty series of twenty successors on 1,500 held-out messages."""
    qualities = dict(worlds(20))[name]
    found = []
    for run in range(20):
        series, groups = draw_series(
            np.random.default_rng([1, run]), qualities, 1500, grouped=False
        )
        found.append(run_series(series, groups, anchored=anchored))
    return found


def test_good_successors_pass_in_a_series() -> None:
    assert np.mean([each.published for each in run_chains("equal")]) >= 0.88
    assert np.mean([each.published for each in run_chains("each 0.3 points better")]) >= 0.95


def test_small_losses_do_not_add_up_in_a_series() -> None:
    """``tests.bench.successions`` has more worlds. Without the anchor all steps count alone."""
    worse = run_chains("each 0.3 points worse")
    assert sum(each.accuracy > 0.02 for each in worse) <= 1
    blind = run_chains("each ranks 20 % worse")
    assert sum(each.filed > 0.05 for each in blind) <= 1
    alone = run_chains("each 0.3 points worse", anchored=False)
    assert np.mean([each.accuracy for each in alone]) > 2 * np.mean(
        [each.accuracy for each in worse]
    )


def test_many_seeds_of_a_worse_recipe_pass_once_in_twenty_times() -> None:
    """One of twenty passed in a third of all cases when each had the whole level."""
    assert share_of_seeds(np.random.default_rng(3), 1500, 0.8, runs=60, seeds=20) <= 0.1
