"""What a split can show is what the gate and the thresholds then do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.toy_adapter import LABELS
from tests.unit.trainer.store.conftest import MakeRun
from trainer.statistics.thresholds import FOLD_LEVEL, LEVEL, review_threshold
from trainer.store.gate import judge
from trainer.store.promise import what_split_can_show
from trainer.store.record import read_evidence
from trainer.store.rules import Comparison, GateRules
from worker.contract import read_manifest

EQUAL = Comparison(
    current_digest="0" * 64,
    holdout_sha256="a1" * 32,
    messages=46,
    only_new_right=0,
    only_current_right=0,
    p_value=1.0,
)


def spread(messages: int) -> dict[str, int]:
    return {label: len(range(at, messages, len(LABELS))) for at, label in enumerate(LABELS)}


def passes_accuracy(run: Path, against: Comparison | None) -> bool:
    evidence = read_evidence(run / "evaluation")
    verdict = judge(read_manifest(run / "adapter"), evidence, GateRules(), against)
    return next(row.passed for row in verdict.criteria if row.name.startswith("accuracy"))


@pytest.mark.parametrize("messages", [46, 330])
def test_it_names_the_counts_with_which_the_gate_passes(make_run: MakeRun, messages: int) -> None:
    found = what_split_can_show(spread(400), spread(24), spread(messages))
    for right, against in ((found.first_right, None), (found.later_right, EQUAL)):
        assert right is not None
        for hits in (right, right - 1):
            wrong = range(messages - hits)
            run = make_run(f"{hits}-{against is None}", wrong, messages)
            assert passes_accuracy(run, against) == (hits == right)


@pytest.mark.parametrize("precision", [0.8, 0.95])
def test_the_fewest_messages_are_those_that_give_a_threshold(precision: float) -> None:
    found = what_split_can_show({}, {}, {}, precision)
    for fewest, level in ((found.fewest, LEVEL), (found.fewest_by_folds, FOLD_LEVEL)):
        for rows in (fewest, fewest - 1):
            sure, right = np.linspace(0.99, 0.999, rows), np.ones(rows, dtype=np.bool_)
            threshold = review_threshold(sure, right, precision, floor=0.5, level=level)
            assert (threshold < 1.0) == (rows == fewest)


def test_too_few_validation_messages_are_told_with_what_helps() -> None:
    few = what_split_can_show(spread(20), spread(6), spread(15))
    assert "every message goes to review" in few.sentences[0]
    assert "Label at least 46 more messages" in few.sentences[0]
    some = what_split_can_show(spread(230), spread(24), spread(46))
    assert 'kind = "embedding-linear" can prove it with all 254 messages' in some.sentences[0]
    assert "which only 46 of 46 would" in " ".join(some.sentences)
    used = what_split_can_show(spread(230), spread(24), spread(46), by_folds=True)
    assert used.sentences == some.sentences[1:], "what is used already is not recommended"
    enough = what_split_can_show(spread(3000), spread(400), spread(800))
    assert "validation" not in " ".join(enough.sentences)


def test_of_threads_it_is_said_that_it_takes_more() -> None:
    parts = spread(230), spread(24), spread(46)
    plain, threads = (what_split_can_show(*parts, grouped=known) for known in (False, True))
    [more] = [each for each in threads.sentences if each not in plain.sentences]
    assert more == "Messages that belong together count as fewer, so it takes more of them."


@pytest.mark.parametrize("validating", [31, 104])
def test_a_teachers_labels_prove_nothing_so_only_reviewers_help(validating: int) -> None:
    """Neither another kind of model nor more of the teacher's labels does."""
    found = what_split_can_show({}, spread(validating), spread(196))
    assert "Have reviewers decide on more messages, drawn at random" in found.sentences[0]
    assert "embedding-linear" not in found.sentences[0]
    assert "Label at least" not in found.sentences[0]


def test_labels_that_the_holdout_cannot_show_are_named() -> None:
    held = spread(60) | {LABELS[0]: 5}
    found = what_split_can_show(spread(300), spread(30), held)
    assert found.unproven == (LABELS[0],)
    assert found.fewest_of_a_label == 6
