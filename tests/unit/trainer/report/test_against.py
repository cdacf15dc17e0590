"""Two runs side by side: compared on the same messages, and honest where there are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_world import call
from tests.unit.trainer.report.conftest import Made, put, write_run
from tests.unit.trainer.report.page import Page
from trainer.dataset.folder import count_openings, open_dataset
from trainer.errors import BadInput
from trainer.report import numbers
from trainer.report.against.build import write_comparison
from trainer.report.records import Report
from trainer.statistics.metrics import Discordance, mcnemar_exact
from trainer.statistics.paired import paired_interval

pytestmark = pytest.mark.slow


@pytest.fixture
def two(tmp_path: Path) -> tuple[Made, Made]:
    """Return two runs on one dataset, with other scores and another recipe."""
    july = write_run(tmp_path / "july")
    june = write_run(tmp_path / "june", seed=11)
    for made, name, changes in (
        (july, "july", {}),
        (june, "june", {"recipe": {"lora_rank": 8, "learning_rate": 2e-4, "warmup": 0.1}}),
    ):
        path = made.run / "training.json"
        put(path, json.loads(path.read_text("utf-8")) | {"name": name} | changes)
    return july, june


def draw(two: tuple[Made, Made], tmp_path: Path, **settings: Any) -> tuple[Report, Page, str]:
    out = tmp_path / "page.html"
    report = write_comparison(two[0].run, two[1].run, out, **settings)
    text = out.read_text(encoding="utf-8")
    return report, Page(text), text


def answers(made: Made) -> dict[str, tuple[str, str]]:
    lines = (made.run / "evaluation" / "predictions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["id"]: (row["label"], row["predicted"]) for row in rows}


def test_the_difference_is_that_of_the_same_messages(
    two: tuple[Made, Made], tmp_path: Path
) -> None:
    """Counted anew here: both accuracies, the discordant messages, interval and test."""
    report, page, _ = draw(two, tmp_path)
    assert all(report.sections.values())
    mine, theirs = answers(two[0]), answers(two[1])
    right = {id_: (mine[id_][0] == mine[id_][1], theirs[id_][0] == theirs[id_][1]) for id_ in mine}
    found = Discordance(
        sum(a and not b for a, b in right.values()),
        sum(b and not a for a, b in right.values()),
        len(right),
    )
    assert found.a_only
    assert found.b_only
    for made in two:
        assert f"{made.evaluation['accuracy']:.1%}" in page.words
    interval = numbers.points_interval(paired_interval(found))
    assert f"Difference {numbers.points(found.difference)} on the same 240 messages" in page.words
    assert f"95% interval {interval} (Tango's)" in page.words
    p = numbers.probability(mcnemar_exact(found))
    assert f"p = {p} (McNemar's exact test)" in page.words
    assert f"{found.a_only} messages right with july alone, {found.b_only} with june" in page.words


def test_confusions_that_came_and_went_are_counted(two: tuple[Made, Made], tmp_path: Path) -> None:
    """Each cell's mistakes in both runs, and how many messages came to it and left it."""
    _, page, _ = draw(two, tmp_path)
    mine, theirs = answers(two[0]), answers(two[1])
    cell = ("billing_fee", "billing_refund")
    now = {id_ for id_, answer in mine.items() if answer == cell}
    before = {id_ for id_, answer in theirs.items() if answer == cell}
    assert now ^ before
    told = f"{len(now)} now, {len(before)} in the other"
    assert f"billing_fee → billing_refund {told}" in page.words
    assert f"{len(now - before)} came, {len(before - now)} left" in page.words


def test_each_label_has_its_paired_interval(two: tuple[Made, Made], tmp_path: Path) -> None:
    """On the messages of that label alone."""
    _, page, _ = draw(two, tmp_path)
    mine, theirs = answers(two[0]), answers(two[1])
    for label in two[0].evaluation["labels"]:
        pairs = [(a[1] == label, theirs[id_][1] == label)
                 for id_, a in mine.items() if a[0] == label]  # fmt: skip
        found = Discordance(
            sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs), len(pairs)
        )
        assert numbers.points_interval(paired_interval(found)) in page.words


def test_messages_that_changed_sides_are_named_and_shown_if_asked_for(
    two: tuple[Made, Made], tmp_path: Path
) -> None:
    """Their ids always; their texts with --texts, which opens the hold-out once and says so."""
    _, page, text = draw(two, tmp_path)
    mine, theirs = answers(two[0]), answers(two[1])
    lost = [id_ for id_, (label, given) in mine.items()
            if given != label and theirs[id_][1] == label]  # fmt: skip
    assert lost
    assert all(id_ in page.words for id_ in lost)
    assert "message number" not in text
    assert count_openings(open_dataset(two[0].dataset)) == 0
    report, page, text = draw(two, tmp_path, texts=True)
    assert report.with_texts
    assert report.path.stat().st_mode & 0o777 == 0o640
    held = {example.id: example.message for example in two[0].holdout}
    assert all(held[id_] in text for id_ in lost)
    assert count_openings(open_dataset(two[0].dataset)) == 1


def test_what_was_done_differently_is_told_and_no_more(
    two: tuple[Made, Made], tmp_path: Path
) -> None:
    """Settings of the recipe that differ, those that one lacks; what is the same is not."""
    _, page, _ = draw(two, tmp_path)
    assert "lora_rank 16 8" in page.words
    assert "warmup not there 0.1" in page.words
    assert "learning_rate" not in page.words
    assert "The same in both:" in page.words


def test_other_hold_outs_are_not_paired(two: tuple[Made, Made], tmp_path: Path) -> None:
    """The figures stand side by side with an interval of different messages, and nothing that
    needs the same ones is shown."""
    other = write_run(tmp_path / "other", per_label=40, text="another text {}".format)
    report, page, _ = draw((two[0], other), tmp_path)
    assert "The figures are of different messages" in page.words
    assert "they were measured on different hold-outs" in page.words
    assert not report.sections["confusion_changes"]
    assert not report.sections["message_changes"]
    assert "cannot be told apart" not in page.words
    assert "Messages a label" in page.words


def test_a_run_that_was_not_evaluated_still_has_curves(
    two: tuple[Made, Made], tmp_path: Path
) -> None:
    """What there is is compared; the rest says what is missing."""
    shutil.rmtree(two[1].run / "evaluation")
    shutil.rmtree(two[1].run / "duel")
    report, page, _ = draw(two, tmp_path)
    there = {key for key, shown in report.sections.items() if shown}
    assert there == {"curves_both", "differences"}
    assert "was not evaluated" in page.words


def test_altered_predictions_of_the_other_run_are_refused(
    two: tuple[Made, Made], tmp_path: Path, rewrite: Callable[..., None]
) -> None:
    """Both runs' figures are computed again before they stand on one page."""
    rewrite(two[1].run / "evaluation" / "evaluation.json", accuracy=0.999)
    code, _, error = call("report", two[0].run, "--against", two[1].run)
    assert code == 4
    assert "accuracy" in error


def test_the_same_run_twice_is_a_slip(two: tuple[Made, Made], tmp_path: Path) -> None:
    """There is nothing to compare."""
    with pytest.raises(BadInput, match="is the same run"):
        write_comparison(two[0].run, two[0].run, tmp_path / "page.html")


def test_the_command_names_the_page_after_the_other_run(two: tuple[Made, Made]) -> None:
    """So that it takes no other page's place; options of the gate are refused."""
    other = two[1].run.rename(two[1].run.with_name("june-run"))
    code, result, error = call("report", two[0].run, "--against", other, "--json")
    assert (code, error) == (0, "")
    assert result["report"] == str(two[0].run / "report-against-june-run.html")
    assert result["of"] == "comparison"
    code, _, error = call("report", two[0].run, "--against", other, "--set", "ece=0.1")
    assert code == 2
    assert "the page of two runs has no gate" in error
