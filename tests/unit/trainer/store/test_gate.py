"""The gate: what passes, what does not, and what is told of each criterion."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from tests.unit.trainer.store.conftest import MakeRun
from trainer.errors import BadInput
from trainer.store.evidence import Comparison, Evidence, compare_evidence, read_evidence
from trainer.store.gate import GateRules, judge, load_rules
from worker.contract import read_manifest

CONFIG = Path(__file__).parents[4] / "config" / "gate.toml"


def altered(evidence: Evidence, **figures: Any) -> Evidence:
    return replace(evidence, evaluation=evidence.evaluation.model_copy(update=figures))


def verdict_of(run: Path, rules: GateRules | None = None) -> dict[str, bool]:
    manifest = read_manifest(run / "adapter")
    verdict = judge(manifest, read_evidence(run / "evaluation"), rules or GateRules(), None)
    return {criterion.name: criterion.passed for criterion in verdict.criteria}


def test_a_good_adapter_passes_every_criterion(make_run: MakeRun) -> None:
    """Ten wrong of 300, spread over one label, calibrated: nothing to object to."""
    found = verdict_of(make_run("good"))
    assert all(found.values())
    assert {f"recall of {label}" for label in ("billing", "delivery", "other")} <= set(found)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"wrong": range(0, 300, 14)}, {"accuracy, lower end of the 95 % interval"}),
        (
            {"wrong": [*range(0, 78, 3)]},
            {"accuracy, lower end of the 95 % interval", "recall of billing"},
        ),
        ({"adapter": {"digest": "ff" * 32}}, {"adapter evaluated"}),
        ({"limited": True}, {"hold-out"}),
        ({"dataset": {"holdout_sha256": ""}}, {"hold-out"}),
        ({"outside_labels": {"constrained": 1}}, {"answers outside the set"}),
        ({"calibration": {"ece": 0.051}}, {"calibration error (ECE)"}),
        ({"accuracy": 0.99}, {"predictions"}),
        ({"examples": 301}, {"predictions"}),
        ({"macro_f1": 0.9999}, {"predictions"}),
        ({"accuracy_interval_95": [0.97, 0.99]}, {"predictions"}),
    ],
)
def test_each_shortcoming_fails_its_own_criterion(
    make_run: MakeRun, changes: dict[str, Any], failing: set[str]
) -> None:
    """Accuracy, a weak label, another adapter, a part of a hold-out, an invented label, doubtful
    confidences, and figures that their own predictions contradict."""
    found = verdict_of(make_run("weak", **changes))
    assert {name for name, passed in found.items() if not passed} == failing


def test_a_label_that_the_holdout_lacks_fails(make_run: MakeRun) -> None:
    """A recall of nothing is no recall."""
    run = make_run("absent")
    manifest = read_manifest(run / "adapter")
    evidence = read_evidence(run / "evaluation")
    without = altered(evidence, per_label=evidence.evaluation.per_label[:-1])
    failed = judge(manifest, without, GateRules(), None).failed
    assert failed == ("recall of other",)
    strict = GateRules(label_support=101)
    assert len(judge(manifest, evidence, strict, None).failed) == 3


def test_the_interval_or_the_point_is_judged_as_the_rules_say(make_run: MakeRun) -> None:
    """22 wrong of 300: 92.7 % as a point, 89.1 % at the interval's lower end."""
    run = make_run("close", wrong=range(0, 300, 14))
    assert all(verdict_of(run, GateRules(accuracy_by="point")).values())
    assert not all(verdict_of(run, GateRules(accuracy_by="lower")).values())


def test_free_answers_outside_the_set_are_judged_only_when_asked(make_run: MakeRun) -> None:
    """The share is 0.01; an evaluation that did not look cannot pass such a rule."""
    run, blind = make_run("free"), make_run("blind", outside_labels={"unconstrained_share": None})
    name = "free answers outside the set"
    assert name not in verdict_of(run)
    assert verdict_of(run, GateRules(unconstrained_share=0.02))[name]
    assert not verdict_of(run, GateRules(unconstrained_share=0.005))[name]
    assert not verdict_of(blind, GateRules(unconstrained_share=1.0))[name]


def test_a_significant_regression_fails_and_an_insignificant_one_passes(make_run: MakeRun) -> None:
    """McNemar's test on the same messages: 8 that only the old one gets right against 1 is
    significant, 5 against 1 is not; the p-value is scipy's."""
    shared = set(range(0, 300, 30))
    runs = {
        "old": shared | {1},
        "worse": shared | set(range(100, 108)),
        "level": shared | set(range(100, 105)),
    }
    found = {
        name: read_evidence(make_run(name, wrong) / "evaluation") for name, wrong in runs.items()
    }
    for name, only_old, passed in (("worse", 8, False), ("level", 5, True)):
        against = compare_evidence(found[name], found["old"])
        assert isinstance(against, Comparison)
        assert (against.only_new_right, against.only_current_right) == (1, only_old)
        assert against.p_value == pytest.approx(binomtest(1, only_old + 1, 0.5).pvalue)
        manifest = read_manifest(found[name].path.parents[1] / "adapter")
        verdict = judge(manifest, found[name], GateRules(), against)
        assert verdict.passed is passed
        assert f"1 new, {only_old} current, of 300" in verdict.criteria[-1].found
    better = compare_evidence(found["old"], found["worse"])
    assert isinstance(better, Comparison)
    manifest = read_manifest(found["old"].path.parents[1] / "adapter")
    assert judge(manifest, found["old"], GateRules(), better).passed


def test_different_holdouts_cannot_be_compared(make_run: MakeRun) -> None:
    """The gate refuses what it cannot know, unless it is allowed to go without."""
    runs = (
        make_run("new"),
        make_run("other", dataset={"holdout_sha256": "b2" * 32}),
        make_run("fewer", messages=299),
    )
    new, other, fewer = (read_evidence(run / "evaluation") for run in runs)
    reason = compare_evidence(new, other)
    assert isinstance(reason, str)
    assert "another hold-out" in reason
    assert "same messages" in str(compare_evidence(new, fewer))
    assert "a part" in str(compare_evidence(new, altered(new, limited=True)))
    manifest = read_manifest(new.path.parents[1] / "adapter")
    assert judge(manifest, new, GateRules(), reason).failed == ("against the current adapter",)
    assert judge(manifest, new, GateRules(), reason, allow_unpaired=True).passed


def test_a_store_keeps_no_texts(make_run: MakeRun) -> None:
    """Of an evaluation and its predictions only figures, labels and ids are kept."""
    evidence = read_evidence(make_run("one") / "evaluation")
    assert "words" not in json.dumps(evidence.evaluation.to_json())
    assert b"words" not in evidence.kept_answers
    assert json.loads(evidence.kept_answers.splitlines()[5])["id"] == "m5"


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("evaluation.json", "{", "not JSON"),
        (
            "evaluation.json",
            '{"schema": "evaluation/9"}',
            "its schema is 'evaluation/9', not 'evaluation/1'",
        ),
        (
            "evaluation.json",
            '{"schema": "evaluation/1"}',
            "evaluation.json: created_at: Field required",
        ),
        ("predictions.jsonl", "nope\n", r"predictions.jsonl:1 is not JSON"),
        ("predictions.jsonl", '{"id": 1}\n', r"predictions.jsonl:1: id: Input should be a valid"),
        (
            "predictions.jsonl",
            '{"id": "a", "label": "x", "predicted": "x", "confidence": 1.0, "off_label_mass": 0.0, '
            '"review": false, "unconstrained_in_set": null}\n' * 2,
            r"predictions.jsonl:2: the id 'a' occurs twice",
        ),
    ],
)
def test_a_broken_evaluation_is_told_by_file_and_line(
    make_run: MakeRun, file: str, text: str, problem: str
) -> None:
    """One line that says where, as for every bad input."""
    run = make_run("broken")
    (run / "evaluation" / file).write_text(text)
    with pytest.raises(BadInput, match=problem):
        read_evidence(run / "evaluation")


def test_a_missing_evaluation_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="clerk-trainer evaluate"):
        read_evidence(tmp_path)


def test_the_shipped_rules_are_the_defaults() -> None:
    """config/gate.toml explains what holds when no file is named."""
    assert load_rules(CONFIG) == GateRules() == load_rules(None)
    named = set(tomllib.loads(CONFIG.read_text(encoding="utf-8")))
    assert named == set(asdict(GateRules())) - {"unconstrained_share"}


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """For one run, without editing anything."""
    file = tmp_path / "gate.toml"
    file.write_text('accuracy = 0.5\naccuracy_by = "point"\nmacro_f1 = 1\n')
    found = load_rules(file, ["accuracy=0.7", "accuracy_by=lower", "unconstrained_share=0.1"])
    assert (found.accuracy, found.accuracy_by, found.macro_f1) == (0.7, "lower", 1.0)
    assert found.unconstrained_share == 0.1


@pytest.mark.parametrize(
    ("text", "flags", "problem"),
    [
        ("acuracy = 0.9", [], r"gate.toml: the gate has no rule 'acuracy'; it has accuracy"),
        ("", ["ecce=1"], r"--set: the gate has no rule 'ecce'"),
        ("accuracy = 1.5", [], r"gate.toml: accuracy is 1.5; it must be from 0 to 1"),
        ("", ["ece=small"], r"--set: ece is 'small'; it must be a number"),
        ("", ["ece=true"], "must be a number"),
        ("", ["label_support=1.5"], "must be a whole number"),
        ("", ["label_support=0"], "at least 1"),
        ("", ["accuracy_by=upper"], r"use one of \['lower', 'point'\]"),
        ("", ["ece"], "key=value"),
        ("accuracy =", [], "is not TOML"),
    ],
)
def test_a_wrong_rule_is_told_with_its_origin(
    tmp_path: Path, text: str, flags: list[str], problem: str
) -> None:
    """A gate with a typing error in it is no gate."""
    file = tmp_path / "gate.toml"
    file.write_text(text)
    with pytest.raises(BadInput, match=problem):
        load_rules(file, flags)
    with pytest.raises(BadInput, match="nowhere"):
        load_rules(tmp_path / "nowhere.toml")
