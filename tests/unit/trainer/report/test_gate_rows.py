"""The page shows the gate's own rows, and the next steps follow from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.trainer_world import call
from tests.unit.trainer.report.conftest import Made
from tests.unit.trainer.report.page import Page
from trainer.report.page import BAD, Report
from trainer.report.run import GateChoice, judge_run, read_run
from trainer.report.run_page import write_report
from trainer.report.run_steps import first_step, fix_criteria
from trainer.store.gate import STEERING, judge_accuracy, judge_usefulness
from trainer.store.rules import GateRules, criterion

pytestmark = pytest.mark.slow

PASSED = GateRules(accuracy=0.85)
"""Rules that the run meets: by the usual ones its 240 messages are too few."""


def draw(made: Made, tmp_path: Path, gate: GateChoice | None = None) -> tuple[Report, Page]:
    out = tmp_path / "page.html"
    report = write_report(made.run, out, gate=gate)
    return report, Page(out.read_text(encoding="utf-8"))


def test_the_rows_are_those_that_publish_prints(made: Made, tmp_path: Path) -> None:
    """Name, wanted, found and result of every criterion, as in a dry run."""
    store = tmp_path / "store"
    for rules in (PASSED, GateRules(accuracy=0.999, label_recall=0.99)):
        wanted = (f"accuracy={rules.accuracy}", f"label_recall={rules.label_recall}")
        sets = [part for rule in wanted for part in ("--set", rule)]
        code, result, _ = call("publish", made.run, "--store", store, "--dry-run", *sets, "--json")
        assert code == (0 if rules is PASSED else 3)
        _, page = draw(made, tmp_path, GateChoice(store, rules))
        rows = result["gate"]["criteria"]
        assert len(rows) > 8
        for row in rows:
            mark = "pass" if row["passed"] else "FAIL"
            text = f"{row['name']} {mark} wanted: {row['wanted']} {row['found']}"
            assert " ".join(text.split()) in page.words
        summary = page.words.partition("What to do next")[2]
        meets = f"It may be published: it meets all {len(rows)} criteria of the gate"
        assert (meets in summary) is (rules is PASSED)
    assert f"of {len(rows)} criteria of the gate" in summary
    assert not store.exists()


def test_every_kind_of_gate_failure_has_a_step(made: Made) -> None:
    run = read_run(made.run)
    rules = GateRules(
        accuracy=1.0, macro_f1=1.0, label_recall=1.0, ece=0.0, unconstrained_share=0.0
    )
    judged = judge_run(made.run, GateChoice(rules=rules))
    assert judged is not None
    failed = [row.name for row in judged.verdict.criteria if not row.passed]
    assert len(failed) > 4
    steps = list(fix_criteria(replace(run, gate=judged), "clerk-trainer evaluate"))
    assert all(step.tone == BAD for step in steps)
    assert {step.title for step in steps} == {
        "Improve the accuracy",
        "Label more messages of weak labels",
        "Fix free answers outside the set",
        "Improve the calibration",
    }


def test_one_that_is_not_shown_to_be_better_than_one_label_has_a_step(made: Made) -> None:
    run, judged = read_run(made.run), judge_run(made.run, GateChoice(rules=PASSED))
    assert judged is not None
    row = judge_usefulness([each.model_copy(update={"predicted": ""}) for each in run.predictions])
    run = replace(run, gate=replace(judged, verdict=replace(judged.verdict, criteria=(row,))))
    (step,) = fix_criteria(run, "clerk-trainer evaluate")
    assert (step.title, first_step(run)) == ("Label more messages",) * 2
    assert "would be wrong: 0, the reverse: " in step.why


@pytest.mark.parametrize(("kind", "commands"), [("encoder", 1), ("embedding-linear", 0)])
def test_a_model_that_follows_sentences_has_a_step(made: Made, kind: str, commands: int) -> None:
    """With a command if more such sentences in training can help, which a frozen base does not."""
    run, judged = read_run(made.run), judge_run(made.run, GateChoice(rules=PASSED))
    assert judged is not None
    follows = criterion(STEERING, "not shown to be more", "13.45% of 2,000 pairs", passed=False)
    recipe = run.training.recipe | {"kind": kind, "steering_augmentation": 0.4}
    training = run.training.model_copy(update={"recipe": recipe})
    judged = replace(judged, verdict=replace(judged.verdict, criteria=(follows,)))
    (step,) = fix_criteria(replace(run, training=training, gate=judged), "clerk-trainer evaluate")
    assert step.title == "Teach it to pass over sentences that name a label"
    assert "13.45% of 2,000 pairs" in step.why
    assert len(step.commands) == commands
    assert all("--set steering_augmentation=0.6" in each for each in step.commands)


def test_an_accuracy_above_the_floor_that_so_few_messages_do_not_prove(made: Made) -> None:
    rules = GateRules(accuracy=0.92)
    judged = judge_run(made.run, GateChoice(rules=rules))
    assert judged is not None
    few = replace(
        judged, verdict=replace(judged.verdict, criteria=(judge_accuracy(0.95, 240, rules),))
    )
    run = replace(read_run(made.run), gate=few)
    (step,) = fix_criteria(run, "clerk-trainer evaluate")
    assert step.title == "Hold out more messages"


def test_a_hold_out_that_a_teacher_labelled_is_the_first_thing_to_replace(
    made: Made, rewrite: Callable[..., None]
) -> None:
    path = made.run / "evaluation" / "evaluation.json"
    dataset = json.loads(path.read_text("utf-8"))["dataset"]
    rewrite(path, dataset=dataset | {"holdout_sources": {"teacher": 240}})
    run = replace(read_run(made.run), gate=judge_run(made.run, GateChoice(rules=PASSED)))
    (step,) = fix_criteria(run, "clerk-trainer evaluate")
    assert step.title == "Have reviewers label a hold-out"
    assert "agreement" in step.why
