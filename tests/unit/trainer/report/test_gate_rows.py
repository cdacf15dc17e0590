"""The gate's rows on the page are the gate's, and what to do next follows from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_world import call
from tests.unit.trainer.report.conftest import Made
from tests.unit.trainer.report.page import Page, refuse_unknown_options
from trainer.report.page import BAD, Report
from trainer.report.run import GateChoice, judge_run, read_run
from trainer.report.run_page import write_report
from trainer.report.run_steps import mend_criteria
from trainer.store.rules import GateRules

pytestmark = pytest.mark.slow

PASSED = GateRules(accuracy=0.85)
"""Rules that the run meets: by the usual ones its 240 messages are too few."""


def draw(made: Made, tmp_path: Path, gate: GateChoice | None = None) -> tuple[Report, Page]:
    out = tmp_path / "page.html"
    report = write_report(made.run, out, gate=gate)
    return report, Page(out.read_text(encoding="utf-8"))


def test_the_rows_are_those_that_publish_prints(made: Made, tmp_path: Path) -> None:
    """Name, wanted, found and pass or fail of every criterion, as a dry run has them."""
    store = tmp_path / "store"
    for rules in (PASSED, GateRules(accuracy=0.999, label_recall=0.99)):
        sets = (
            "--set",
            f"accuracy={rules.accuracy}",
            "--set",
            f"label_recall={rules.label_recall}",
        )
        code, result, _ = call("publish", made.run, "--store", store, "--dry-run", *sets, "--json")
        assert code == (0 if rules is PASSED else 3)
        _, page = draw(made, tmp_path, GateChoice(store, rules))
        rows = result["gate"]["criteria"]
        assert len(rows) > 8
        for row in rows:
            mark = "pass" if row["passed"] else "FAIL"
            told = f"{row['name']} {mark} wanted: {row['wanted']} {row['found']}"
            assert " ".join(told.split()) in page.words
    assert f"of {len(rows)} criteria" in page.words
    assert not store.exists()


def test_without_a_store_the_current_adapter_is_not_asked_about(made: Made, tmp_path: Path) -> None:
    """A row that passes because nobody looked would mislead: it is left out, and the page says
    so."""
    judged = judge_run(made.run, GateChoice())
    with_store = judge_run(made.run, GateChoice(tmp_path / "store"))
    assert judged is not None
    assert with_store is not None
    names = [row.name for row in judged.criteria]
    assert [*names, "against the current adapter"] == [row.name for row in with_store.criteria]
    _, page = draw(made, tmp_path)
    assert "against the current adapter" not in page.words
    assert "--store names the store to ask" in page.words


def test_intervals_stand_beside_shares(made: Made, tmp_path: Path) -> None:
    """The accuracy's and each label's recall."""
    _, page = draw(made, tmp_path)
    low, high = made.evaluation["accuracy_interval_95"]
    assert f"95% interval {low:.1%} to {high:.1%}" in page.words
    rows = [page.words.count(f"lower end of its interval {mark}") for mark in ("pass", "FAIL")]
    assert sum(rows) == len(made.evaluation["labels"])


def test_a_run_without_an_adapter_has_no_rows(made: Made, tmp_path: Path) -> None:
    """Figures that travelled alone: the gate judges an adapter."""
    (made.run / "adapter" / "manifest.json").unlink()
    report, page = draw(made, tmp_path)
    assert not report.sections["gate"]
    assert "There is no adapter/ in the run folder" in page.words


@pytest.mark.parametrize(
    ("rules", "title", "told"),
    [
        (GateRules(accuracy=0.92), "Hold more messages out", "held-out messages would"),
        (GateRules(accuracy=0.999), "Make it better", "The labels with the lowest F1"),
        (GateRules(macro_f1=0.999), "Make it better", "macro-F1 is"),
        (
            GateRules(label_recall=0.99),
            "Label more of the weak labels",
            "is answered with billing_refund",
        ),
        (GateRules(ece=0.0), "Make its confidence mean something", "temperature is fitted"),
    ],
)
def test_each_criterion_that_fails_is_a_step(
    made: Made, tmp_path: Path, rules: GateRules, title: str, told: str
) -> None:
    """First of all, with the figures; and nothing is published then."""
    assert 0.92 < made.evaluation["accuracy"] < 0.97
    _, page = draw(made, tmp_path, GateChoice(rules=rules))
    assert f"First: {title} first" in page.words
    assert told in page.words
    assert not any(words[1] == "publish" for words in page.commands)


def test_the_steps_are_commands_that_exist(made: Made, tmp_path: Path) -> None:
    """Each is one of clerk-trainer, with options that it has; publishing is last."""
    for rules in (PASSED, GateRules(accuracy=0.999, label_recall=0.99, ece=0.0)):
        _, page = draw(made, tmp_path, GateChoice(rules=rules))
        assert page.commands
        for words in page.commands:
            refuse_unknown_options(words)
    _, page = draw(made, tmp_path, GateChoice(rules=PASSED))
    assert [words[1] for words in page.commands[-3:]] == ["publish", "publish", "promote"]


def test_a_run_that_was_not_measured_begins_there(made: Made, tmp_path: Path) -> None:
    """The first step is the evaluation, the second the duel."""
    for name in ("evaluation", "duel"):
        for path in (made.run / name).iterdir():
            path.unlink()
        (made.run / name).rmdir()
    _, page = draw(made, tmp_path)
    assert [words[1] for words in page.commands[:2]] == ["evaluate", "duel"]
    assert "Publish it" not in page.words


def test_the_duels_verdict_comes_before_everything_of_the_adapter(
    made: Made, tmp_path: Path, rewrite: Callable[..., None]
) -> None:
    """A baseline that does the job is to be shipped; too few messages are a question."""
    path = made.run / "duel" / "duel.json"
    tested = {"margin": 0.01, "tested_baseline": "tf-idf", "required_messages": 3162}
    rewrite(path, conclusion="not_worse", recommendation="tf-idf", **tested)
    _, page = draw(made, tmp_path)
    assert "First: Ship tf-idf in its place first" in page.words
    rewrite(path, conclusion="undecided", recommendation="adapter", **tested)
    _, page = draw(made, tmp_path)
    assert "Find out whether a baseline would do" in page.words
    assert next(words for words in page.commands if words[1] == "duel")[-2:] == ["--margin", "2"]


def test_what_the_evaluation_and_the_curves_say_are_steps(
    made: Made, tmp_path: Path, rewrite: Callable[..., None]
) -> None:
    """Confusions by their kind, the last epoch, the learning curve, what nobody measured."""
    record: dict[str, Any] = json.loads((made.run / "training.json").read_text("utf-8"))
    rewrite(made.run / "training.json", best_epoch=record["epochs"][-1]["number"])
    _, page = draw(made, tmp_path)
    for words in (
        "Train longer",
        "--set epochs=5",
        "Messages of billing_fee that border on billing_refund",
        "The last step of the curve of",
        "Have the hold-out's labels audited",
        "See to the data",
    ):
        assert words in page.words, words


def test_mends_name_every_kind_of_failure(made: Made) -> None:
    """Whatever the gate's row is called, a step answers it: none fails silently."""
    run = read_run(made.run)
    rules = GateRules(
        accuracy=1.0, macro_f1=1.0, label_recall=1.0, ece=0.0, unconstrained_share=0.0
    )
    judged = judge_run(made.run, GateChoice(rules=rules))
    assert judged is not None
    failed = [row.name for row in judged.criteria if not row.passed]
    assert len(failed) > 4
    steps = list(mend_criteria(replace(run, gate=judged), "clerk-trainer evaluate"))
    assert all(step.tone == BAD for step in steps)
    assert {step.title for step in steps} == {
        "Make it better",
        "Label more of the weak labels",
        "Find out about free answers outside the set",
        "Make its confidence mean something",
    }
