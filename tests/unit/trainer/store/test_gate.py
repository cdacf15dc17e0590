"""The gate: the criteria, their rows and their rules."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from tests.unit.trainer.store.conftest import DATASET, HOLDOUT, Clerk, MakeRun
from trainer.artifacts.evaluation import Accepted, KeptPromise
from trainer.dataset.settings import declared_options
from trainer.errors import BadInput
from trainer.statistics.figures import ThresholdRule
from trainer.statistics.metrics import Discordance
from trainer.statistics.paired import non_inferiority_p
from trainer.store.gate import (
    PROMISE,
    STEERING,
    USUAL_HOLDOUT,
    compare_evidence,
    judge,
    judge_accuracy,
    judge_labels,
    judge_promise,
    judge_unseen,
    measure_after_review,
)
from trainer.store.record import Evidence, read_evidence
from trainer.store.rules import Comparison, Criterion, GateRules, GateVerdict, load_rules
from worker.contract import read_manifest
from worker.contract.store import find_adapter

CONFIG = Path(__file__).parents[4] / "config" / "gate.toml"


def altered(evidence: Evidence, **figures: Any) -> Evidence:
    return replace(evidence, evaluation=evidence.evaluation.model_copy(update=figures))


EQUAL = Comparison(
    current_digest="00" * 32,
    holdout_sha256=HOLDOUT,
    messages=1000,
    only_new_right=0,
    only_current_right=0,
    p_value=1.0,
)
"""An adapter that replaces one which gives the same answers."""


def verdict_of(
    run: Path, rules: GateRules | None = None, against: Comparison | None = EQUAL
) -> dict[str, bool]:
    manifest = read_manifest(run / "adapter")
    verdict = judge(manifest, read_evidence(run / "evaluation"), rules or GateRules(), against)
    return {criterion.name: criterion.passed for criterion in verdict.criteria}


def test_labels_of_the_export_and_of_people_measure_accuracy(make_run: MakeRun) -> None:
    run = make_run("good", dataset={"holdout_sources": {"person": 200, "export": 100}})
    assert verdict_of(run)["hold-out's labels"]


def test_agreement_with_a_teacher_is_refused_with_a_remedy(make_run: MakeRun, clerk: Clerk) -> None:
    """A student that repeats its teacher's mistakes would look right."""
    run = make_run("taught", dataset={"holdout_sources": {"person": 20, "teacher": 280}})
    code, out, err = clerk("publish", run)
    assert code == 3
    shown = " ".join((out + err).split())
    assert "280 of 300 by a teacher" in shown
    assert "tasks --for audit" in shown


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"wrong": range(0, 300, 14)}, {"accuracy after review, lower end of the 95 % interval"}),
        (
            {"wrong": [*range(0, 111, 3)]},
            {
                "accuracy after review, lower end of the 95 % interval",
                "macro-F1 after review",
                "recall of billing after review, lower end of its interval",
            },
        ),
        ({"adapter": {"digest": "ff" * 32}}, {"adapter evaluated"}),
        ({"dataset": {"holdout_sources": {"person": 299, "teacher": 1}}}, {"hold-out's labels"}),
        ({"dataset": {"holdout_sha256": ""}}, {"hold-out"}),
        ({"outside_labels": {"constrained": 1}}, {"answers outside the set"}),
        ({"calibration": {"ece": 0.12}}, {"calibration error (ECE)"}),
        ({"accuracy": 0.99}, {"predictions"}),
        ({"macro_f1": 0.9999}, {"predictions"}),
        ({"accuracy_interval_95": [0.97, 0.99]}, {"predictions"}),
        ({"steered": range(10)}, {STEERING, f"{STEERING}, without review"}),
        ({"steering": None}, {STEERING, f"{STEERING}, without review"}),
        ({"steering": {"seed": 2}}, {"predictions"}),
    ],
)
def test_each_shortcoming_fails_its_own_criterion(
    make_run: MakeRun, changes: dict[str, Any], failing: set[str]
) -> None:
    found = verdict_of(make_run("weak", **changes))
    assert {name for name, passed in found.items() if not passed} == failing


def test_a_successor_is_judged_by_every_sentence_that_chooses_a_label(make_run: MakeRun) -> None:
    """The first adapter only by those that no reviewer sees."""
    run = make_run("steered", steered=range(10))
    manifest, evidence = read_manifest(run / "adapter"), read_evidence(run / "evaluation")
    for against, failing in ((None, 1), (EQUAL, 2)):
        verdict = judge(manifest, evidence, GateRules(), against)
        rows = [row for row in verdict.criteria if row.name.startswith(STEERING)]
        assert sum(not row.passed for row in rows) == failing


def test_a_label_that_the_holdout_lacks_fails(make_run: MakeRun) -> None:
    run = make_run("absent")
    manifest = read_manifest(run / "adapter")
    evidence = read_evidence(run / "evaluation")
    settled = measure_after_review(
        [each for each in evidence.answers if "other" not in (each.label, each.predicted)],
        evidence.evaluation.labels,
    )
    assert settled is not None

    def row(rules: GateRules) -> Criterion:
        return list(judge_labels(manifest.taxonomy.names, settled, rules))[-1]

    found = row(GateRules())
    assert not found.passed
    assert found.found.endswith(
        "not shown: 0 messages of it were held out, and at least 6 are needed, all of them right: "
        "label about 40 more of it, or hold out more"
    )
    assert row(GateRules(label_unproven=("other",))).passed


def test_the_interval_or_the_point_is_judged_as_the_rules_say(make_run: MakeRun) -> None:
    """22 wrong of 300: 92.7 % as a point, 89.1 % at the interval's lower end."""
    run = make_run("close", wrong=range(0, 300, 14))
    assert all(verdict_of(run, GateRules(accuracy_by="point")).values())
    assert not all(verdict_of(run, GateRules(accuracy_by="lower")).values())


def test_free_answers_outside_the_set_are_judged_only_when_asked(make_run: MakeRun) -> None:
    run, blind = make_run("free"), make_run("blind", outside_labels={"unconstrained_share": None})
    name = "free answers outside the set"
    assert name not in verdict_of(run)
    assert verdict_of(run, GateRules(unconstrained_share=0.02))[name]
    assert not verdict_of(run, GateRules(unconstrained_share=0.005))[name]
    assert not verdict_of(blind, GateRules(unconstrained_share=1.0))[name]


def test_the_recall_itself_or_its_lower_end_is_judged_as_the_rules_say(make_run: MakeRun) -> None:
    """33 of 100 wrong: 67 % as a point, and at least 58.4 % (Clopper & Pearson, one-sided 95 %)."""
    run = make_run("luck", wrong=range(0, 99, 3))
    assert verdict_of(run, GateRules(label_recall_by="point"))["recall of billing after review"]
    manifest, evidence = read_manifest(run / "adapter"), read_evidence(run / "evaluation")
    rows = {row.name: row for row in judge(manifest, evidence, GateRules(), EQUAL).criteria}
    row = rows["recall of billing after review, lower end of its interval"]
    end = binomtest(67, 100).proportion_ci(0.9, method="exact").low
    assert not row.passed
    assert row.found.startswith(f"{end:.4f} (point 0.6700 of 100); not shown: 100 ")
    assert "and about 145 are needed, with this share: label about 300 more of it" in row.found
    needed = int(row.found.split("about ")[1].split()[0])
    assert 100 < needed < 200


def test_a_label_with_too_few_messages_is_not_shown_and_may_go_unproven(make_run: MakeRun) -> None:
    run = make_run("tiny", wrong=(), messages=6)
    manifest, evidence = read_manifest(run / "adapter"), read_evidence(run / "evaluation")

    def row(rules: GateRules) -> Criterion:
        rows = judge(manifest, evidence, rules, EQUAL).criteria
        return next(row for row in rows if row.name.startswith("recall of billing"))

    found = row(GateRules())
    assert not found.passed
    assert found.found.endswith(
        "of 2); not shown: 2 messages of it were held out, and at least 6 are needed, all of them "
        "right: label about 27 more of it, or hold out more"
    )
    allowed = row(GateRules(label_unproven=("billing",)))
    assert allowed.passed
    assert allowed.found.endswith("allowed by label_unproven")


def test_a_label_that_is_shown_to_be_bad_may_not_go_unproven(make_run: MakeRun) -> None:
    run = make_run("bad", wrong=range(0, 165, 3))
    rules = GateRules(label_unproven=("billing",))
    assert not verdict_of(run, rules)["recall of billing after review, lower end of its interval"]


@pytest.mark.parametrize("against", [None, EQUAL])
def test_a_wrong_label_in_review_counts_as_right(
    make_run: MakeRun, against: Comparison | None
) -> None:
    """Seven of ten are right. An adapter that knows where it errs costs reviews, not wrong labels:
    all but 3 of its 300 messages come out right. Without review it is refused."""
    wrong = range(0, 300, 3)
    knows = make_run("knows", wrong=wrong, review=[at for at in wrong if at % 100])
    assert all(verdict_of(knows, against=against).values())
    blind = verdict_of(make_run("blind", wrong=wrong), against=against)
    assert not blind["accuracy after review, lower end of the 95 % interval"]
    assert not blind["macro-F1 after review"]
    assert not blind["recall of billing after review, lower end of its interval"]


def first_verdict(run: Path, rules: GateRules | None = None) -> GateVerdict:
    manifest, evidence = read_manifest(run / "adapter"), read_evidence(run / "evaluation")
    return judge(manifest, evidence, rules or GateRules(), None)


def test_a_good_first_adapter_passes_with_46_messages_and_a_successor_is_undecided(
    make_run: MakeRun,
) -> None:
    """42 of 46 right: too few to show a floor of 90 %, and not shown to miss it."""
    run = make_run("first", wrong=range(0, 40, 10), messages=46)
    assert first_verdict(run).passed
    manifest, evidence = read_manifest(run / "adapter"), read_evidence(run / "evaluation")
    later = judge(manifest, evidence, GateRules(), EQUAL)
    assert not later.passed
    assert later.undecided
    row = next(row for row in later.criteria if row.name.startswith("accuracy"))
    assert row.verdict == "TOO FEW"
    needed = int(row.found.split("about ")[1].split()[0].replace(",", ""))
    figures = evidence.evaluation.accuracy
    passes = judge_accuracy(figures, needed, GateRules()).passed
    assert passes
    assert not judge_accuracy(figures, needed - 1, GateRules()).passed


def test_a_first_adapter_that_is_shown_to_be_bad_fails(make_run: MakeRun) -> None:
    """15 of 46 wrong: the interval lies below the floor."""
    verdict = first_verdict(make_run("bad", wrong=range(0, 45, 3), messages=46))
    assert "accuracy after review, lower end of the 95 % interval" in verdict.failed
    assert not verdict.undecided


def test_a_first_adapter_has_to_be_better_than_the_commonest_label(make_run: MakeRun) -> None:
    """A third of the labels are ``billing``; the adapter is right as often."""
    run = make_run("useless", wrong=[at for at in range(60) if at % 3], messages=60)
    rules = GateRules(accuracy=0.0, macro_f1=0.0, label_recall=0.0, ece=1.0)
    assert first_verdict(run, rules).failed == ("against the commonest label",)
    assert first_verdict(make_run("useful", messages=60), rules).passed


@pytest.mark.parametrize(
    ("sources", "passed"), [({"person": 90}, True), ({"person": 60, "teacher": 30}, False)]
)
def test_a_promise_of_agreement_with_a_teacher_is_refused(
    make_run: MakeRun, sources: dict[str, int], passed: bool
) -> None:
    """The hold-out is people's, but the threshold was chosen where the teacher says what is
    right."""
    evidence = read_evidence(make_run("promise") / "evaluation")
    dataset = evidence.evaluation.dataset.model_copy(update={"validation_sources": sources})
    kept = promise((582, 600), (768, 800))
    found = judge_promise(
        evidence.evaluation.model_copy(update={"promise": kept, "dataset": dataset})
    )
    assert found.passed == passed
    assert passed or "30 of the labels that chose its threshold are by a teacher" in found.found


def test_a_broken_promise_stops_a_first_adapter_too(make_run: MakeRun) -> None:
    run = make_run("promise")
    manifest, evidence = read_manifest(run / "adapter"), read_evidence(run / "evaluation")
    broken = evidence.evaluation.model_copy(update={"promise": promise((570, 600), (768, 800))})
    verdict = judge(manifest, replace(evidence, evaluation=broken), GateRules(), None)
    assert PROMISE in verdict.failed


@pytest.mark.parametrize(
    ("ece", "messages", "first", "later"),
    [(0.05, 60, True, True), (0.06, 60, True, True), (0.06, 1200, True, False),
     (0.3, 60, False, False), (0.1, 1200, False, False)],
)  # fmt: skip
def test_the_calibration_error_is_judged_by_what_chance_gives(
    make_run: MakeRun, ece: float, messages: int, first: bool, later: bool
) -> None:
    """Perfect confidences of 0.9 show an error of up to 0.13 on 60 messages. A first adapter fails
    only if it is shown to be above the ceiling."""
    run = make_run("ece", messages=messages, calibration={"ece": ece})
    name = "calibration error (ECE)"
    assert verdict_of(run, against=None)[name] == first
    assert verdict_of(run)[name] == later


def promise(
    validation: tuple[int, int], holdout: tuple[int, int], by: ThresholdRule = "lower"
) -> KeptPromise:
    """A promise of 95 % with so many (right, all) of independent messages without review."""
    (right, total), (held_right, held) = validation, holdout
    shown = binomtest(right, total, 0.95, alternative="greater").pvalue if total else 1.0
    refuted = binomtest(held_right, held, 0.95, alternative="less").pvalue if held else 1.0
    return KeptPromise(
        precision=0.95,
        by=by,
        validation=Accepted(messages=total, right=right, effect=1.0, p=shown),
        holdout=Accepted(messages=held, right=held_right, effect=1.0, p=refuted),
    )


@pytest.mark.parametrize(
    ("found", "passed", "told"),
    [
        (promise((582, 600), (768, 800)), True, "validation: 0.9700 of 600"),
        (promise((570, 600), (768, 800)), False, "its threshold is lower than validation supports"),
        (promise((582, 600), (744, 800)), False, "train again with a higher review_precision"),
        (promise((0, 0), (0, 0)), True, "validation: all go to review; hold-out: all go to review"),
        (promise((570, 600), (752, 800), by="point"), True, "hold-out: 0.9400 of 800"),
        (promise((570, 600), (740, 800), by="point"), False, "hold-out: 0.9250 of 800"),
    ],
)
def test_the_promised_precision_is_a_criterion(
    make_run: MakeRun, found: KeptPromise, passed: bool, told: str
) -> None:
    """Validation must show it and the hold-out must not refute it; by the point value, only the
    latter."""
    run = make_run("promise")
    evidence = altered(read_evidence(run / "evaluation"), promise=found)
    rows = judge(read_manifest(run / "adapter"), evidence, GateRules(), None).criteria
    row = next(row for row in rows if row.name == PROMISE)
    assert row.passed is passed
    assert told in row.found


def test_messages_that_belong_together_prove_less(make_run: MakeRun) -> None:
    """Three against one of 300 pass a margin of three points if messages are independent, but not
    in threads of ten."""
    shared = set(range(0, 300, 30))
    rules = GateRules(non_inferiority_margin=0.03)
    found = []
    for group in (None, 10):
        old = read_evidence(make_run(f"old{group}", shared | {1}, group=group) / "evaluation")
        new = read_evidence(make_run(f"new{group}", shared | {100, 101, 102}, group=group)
                            / "evaluation")  # fmt: skip
        against = compare_evidence(new, old)
        assert isinstance(against, Comparison)
        manifest = read_manifest(new.path.parents[1] / "adapter")
        row = judge(manifest, new, rules, against).criteria[-1]
        found.append((row.passed, against.design_effect))
    assert found[0] == (True, 1.0)
    assert not found[1][0]
    assert found[1][1] > 2
    assert judge_accuracy(0.95, 300, GateRules()).passed
    assert not judge_accuracy(0.95, 300, GateRules(), effect=5.0).passed


@pytest.mark.parametrize(
    ("wrong", "passed", "told"),
    [
        (range(100, 101), True, "+0.0 points, at worst -1.6 points; p = "),
        (range(100, 103), False, "not enough messages: an equal adapter needs about "),
        (range(100, 109), False, "significantly worse (McNemar's p = "),
    ],
)
def test_it_has_to_be_shown_that_the_new_adapter_is_not_worse(
    make_run: MakeRun, wrong: range, passed: bool, told: str
) -> None:
    """One each way of 300 proves a margin of two points; three against one does not, and the row
    says how many messages would; nine against one is a regression."""
    shared = set(range(0, 300, 30))
    old = read_evidence(make_run("old", shared | {1}) / "evaluation")
    new = read_evidence(make_run("new", shared | set(wrong)) / "evaluation")
    against = compare_evidence(new, old)
    assert isinstance(against, Comparison)
    assert (against.only_new_right, against.only_current_right) == (1, len(wrong))
    assert against.p_value == pytest.approx(binomtest(1, len(wrong) + 1, 0.5).pvalue)
    verdict = judge(read_manifest(new.path.parents[1] / "adapter"), new, GateRules(), against)
    [row] = [each for each in verdict.criteria if each.name == "against the current adapter"]
    assert row.passed is passed
    assert f"1 new, {len(wrong)} other, of 300" in row.found
    assert told in row.found
    counts = Discordance(1, len(wrong), 300)
    assert f"p = {non_inferiority_p(counts, 0.02):.2g}" in row.found


def test_one_that_is_significantly_worse_by_less_than_the_margin_fails_too(
    make_run: MakeRun,
) -> None:
    shared = set(range(0, 300, 30))
    old = read_evidence(make_run("old", shared | {1}) / "evaluation")
    new = read_evidence(make_run("new", shared | set(range(100, 109))) / "evaluation")
    manifest = read_manifest(new.path.parents[1] / "adapter")
    rules = GateRules(non_inferiority_margin=0.1)
    verdict = judge(manifest, new, rules, compare_evidence(new, old))
    [row] = [each for each in verdict.criteria if each.name == "against the current adapter"]
    assert non_inferiority_p(Discordance(1, 9, 300), 0.1) < 0.05
    assert not row.passed
    assert row.found.endswith("significantly worse (McNemar's p = 0.021)")


def test_different_holdouts_cannot_be_compared(make_run: MakeRun) -> None:
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
    manifest = read_manifest(new.path.parents[1] / "adapter")
    assert judge(manifest, new, GateRules(), reason).failed == ("against the current adapter",)
    assert judge(manifest, new, GateRules(), reason, allow_unpaired=True).passed


def test_more_is_labelled_by_the_share_that_prepare_holds_out() -> None:
    [share] = [each.default for each in declared_options() if each.name == "holdout_share"]
    assert share == USUAL_HOLDOUT


def test_the_shipped_rules_are_the_defaults() -> None:
    assert load_rules(CONFIG) == GateRules() == load_rules(None)
    named = set(tomllib.loads(CONFIG.read_text(encoding="utf-8")))
    assert named == set(asdict(GateRules())) - {"unconstrained_share"}


def test_flags_win_over_the_file(tmp_path: Path) -> None:
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
        ("accuracy = 1.5", [], r"gate.toml: accuracy is 1.5: .* less than or equal to 1"),
        ("", ["ece=true"], "--set: ece is True: .* valid number"),
        ("", ["label_unproven=[1]"], "label_unproven is 1: .* valid string"),
        ("", ["accuracy_by=upper"], "accuracy_by is 'upper': .* 'lower' or 'point'"),
        ("", ["non_inferiority_margin=0"], "non_inferiority_margin is 0: .* greater than 0"),
    ],
)
def test_a_wrong_rule_is_told_with_its_origin(
    tmp_path: Path, text: str, flags: list[str], problem: str
) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(text)
    with pytest.raises(BadInput, match=problem):
        load_rules(file, flags)
    with pytest.raises(BadInput, match="nowhere"):
        load_rules(tmp_path / "nowhere.toml")


# No adapter is published on the evaluation of messages that it was trained on.


OTHER = "d2" * 32
PROOF: dict[str, Any] = {
    "trained_on": DATASET,
    "evaluated_on": OTHER,
    "holdout_sha256": HOLDOUT,
    "similarity": 0.7,
    "seen_messages": 900,
    "holdout_messages": 300,
    "copies": 0,
    "near_copies": 0,
    "same_ids": 0,
}


def judged(run: Path) -> tuple[bool, str]:
    evaluation = read_evidence(run / "evaluation").evaluation
    row = judge_unseen(read_manifest(run / "adapter"), evaluation)
    return row.passed, row.found


def test_an_evaluation_on_another_dataset_does_not_publish(clerk: Clerk, make_run: MakeRun) -> None:
    run = make_run("one", dataset={"digest": OTHER})
    code, out, _ = clerk("publish", run, "--json")
    assert code == 3
    result = json.loads(out)
    assert result["current"] is None
    failed = [row for row in result["gate"]["criteria"] if not row["passed"]]
    assert [row["name"] for row in failed] == ["hold-out unseen"]
    assert "--trained-on" in failed[0]["found"]


@pytest.mark.parametrize("unseen", [None, "", "received after its training"])
def test_an_imported_model_needs_a_reason_which_the_row_repeats(
    make_run: MakeRun, unseen: str | None
) -> None:
    run = make_run("one")
    manifest = replace(
        read_manifest(run / "adapter"), data={"digest": DATASET, "imported": {"unseen": unseen}}
    )
    row = judge_unseen(manifest, read_evidence(run / "evaluation").evaluation)
    assert row.passed is bool(unseen)
    assert (unseen or "what the imported model learnt is unknown") in row.found
    other = make_run("two", dataset={"digest": OTHER})  # a reason is no proof about other messages
    assert not judge_unseen(manifest, read_evidence(other / "evaluation").evaluation).passed


def test_a_proof_of_disjointness_publishes(clerk: Clerk, make_run: MakeRun) -> None:
    run = make_run("one", dataset={"digest": OTHER}, disjoint=PROOF)
    code, out, _ = clerk("publish", run, "--json")
    assert code == 0
    digest = json.loads(out)["digest"]
    record = json.loads((run.parent / "store" / f"{digest}.json").read_text())
    assert record["evaluation"]["disjoint"] == PROOF


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"copies": 150, "near_copies": 1}, "151 of its 300 held-out messages"),
        ({"same_ids": 2}, "2 more by their ids"),
        ({"near_copies": 1}, "1 of its 300 held-out messages"),
        ({"trained_on": "d3" * 32}, "another training dataset"),
        ({"evaluated_on": "d3" * 32}, "another hold-out"),
        ({"holdout_sha256": "a2" * 32}, "another hold-out"),
        ({"holdout_messages": 30}, "30 messages, but 300 were evaluated"),
        ({"similarity": 0.95}, "nearer than 0.95, but"),
    ],
)
def test_a_proof_of_something_else_is_none(
    make_run: MakeRun, changes: dict[str, Any], said: str
) -> None:
    passed, found = judged(
        make_run("one", dataset={"digest": OTHER}, disjoint={**PROOF, **changes})
    )
    assert not passed
    assert said in found


def test_an_adapter_of_no_known_dataset_is_refused(make_run: MakeRun) -> None:
    run = make_run("one")
    manifest = json.loads((run / "adapter" / "manifest.json").read_text())
    manifest["data"] = {}
    (run / "adapter" / "manifest.json").write_text(json.dumps(manifest))
    passed, found = judged(run)
    assert not passed
    assert "does not name the dataset" in found


def test_a_current_adapter_that_knows_the_hold_out_is_no_measure(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    assert clerk("publish", make_run("old"))[0] == 0
    digest = find_adapter(store).directory.name
    other = {"digest": OTHER, "holdout_sha256": "b2" * 32}
    proof = PROOF | {"holdout_sha256": "b2" * 32}
    new = make_run("new", range(0, 300, 60), dataset=other, disjoint=proof)

    def publish(name: str, **changes: Any) -> tuple[int, str, str]:
        again = make_run(name, dataset=other, adapter={"digest": digest}, **changes)
        return clerk("publish", new, "--current-evaluation", again / "evaluation", "--dry-run")

    code, _, err = publish("unproven")
    assert (code, "without proof that its hold-out was not learnt from" in err) == (2, True), err
    code, _, err = publish("seen", disjoint=proof | {"copies": 4})
    assert (code, "4 of its 300 held-out messages" in err) == (2, True), err
    assert publish("proven", disjoint=proof)[0] == 0
