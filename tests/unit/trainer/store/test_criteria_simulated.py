"""The gate against a known truth: how often does it refuse the good and let the bad through?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom

from tests.support.trainer_world import evaluation_json
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.statistics.figures import LabelFigures
from trainer.statistics.metrics import Discordance, mcnemar_exact
from trainer.store.criteria import judge_labels, judge_regression
from trainer.store.gate_rules import GateRules
from trainer.store.verdict import Comparison

RUNS = 400
LABELS = tuple(f"label-{number}" for number in range(11))
PER_LABEL = 15
UPPER, POINT = GateRules(), GateRules(label_recall_by="point")
BLANK = EvaluationRecord.model_validate(evaluation_json(), strict=False)


def share_refused(rules: GateRules, recalls: Sequence[float], per_label: int) -> float:
    """Return in which share of runs any label fails, of adapters with these true recalls: exactly,
    by the row of every number of messages that can be found."""
    failing = []
    for hits in range(per_label + 1):
        figures = tuple(LabelFigures(name, 1, hits / per_label, 1, per_label) for name in LABELS)
        evaluation = BLANK.model_copy(update={"per_label": figures})
        if not next(iter(judge_labels(LABELS, evaluation, rules))).passed:
            failing.append(hits)
    passed = 1 - binom.pmf(np.array(failing)[:, None], per_label, recalls).sum(axis=0)
    return 1 - float(passed.prod())


def test_an_adapter_whose_labels_all_reach_the_floor_fails_once_in_twenty_times_at_most() -> None:
    """Judged by the share that was found, luck refuses all that are at the floor and two thirds of
    those that find 85 % of each label."""
    at_floor, well_above = [0.75] * 11, [0.85] * 11
    assert share_refused(UPPER, at_floor, PER_LABEL) <= 0.05
    assert share_refused(UPPER, well_above, PER_LABEL) <= 0.01
    assert share_refused(POINT, at_floor, PER_LABEL) > 0.95
    assert share_refused(POINT, well_above, PER_LABEL) > 0.6


@pytest.mark.parametrize(("recall", "per_label", "caught"), [(0.2, 15, 0.95), (0.55, 136, 0.95)])
def test_a_label_that_is_lost_is_caught(recall: float, per_label: int, caught: float) -> None:
    """One of eleven: on fifteen messages where four in five are missed, on a hundred and more
    where not quite half are."""
    assert share_refused(UPPER, [recall, *[0.95] * 10], per_label) > caught


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
        )
        passed += judge_regression(against, GateRules(), allow_unpaired=False).passed
    return passed / RUNS


def test_an_adapter_that_is_worse_by_the_margin_passes_once_in_twenty_times_at_most() -> None:
    """Of 800 messages and of 200 alike: too few of them prove nothing."""
    for messages in (200, 800):
        assert share_passed(worse=0.02, messages=messages) <= 0.05


def test_one_that_is_as_good_passes_nine_times_in_ten_with_800_messages() -> None:
    """Where the two differ in being right on 3 % of them, as config/gate.toml says."""
    assert share_passed(worse=0.0, messages=800) > 0.87
