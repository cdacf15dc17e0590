"""An audit of the hold-out's labels, from the sample to the corrected accuracy."""

from __future__ import annotations

import csv
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.support.trainer_world import call
from trainer.artifacts.evaluation import (
    AUDIT,
    EVALUATION,
    EVALUATION_FOLDER,
    PREDICTIONS,
    VALIDATION,
    EvaluatedAdapter,
)
from trainer.dataset.folder import Dataset, Example, list_openings, write_dataset
from trainer.evaluation.evaluate import describe_dataset
from trainer.evaluation.predictions import Outputs, predict
from trainer.evaluation.summary import Predictions, Setup, summarize
from trainer.statistics.metrics import wilson
from worker.common.review_files import save_answers
from worker.contract import Label, Taxonomy, Thresholds
from worker.contract.exchange import Answer, read_tasks

pytestmark = pytest.mark.slow

LABELS = ("refund", "payment")
TAXONOMY = Taxonomy("t", "1", "", tuple(Label(name, "") for name in LABELS))
HELD = 200


class Site(NamedTuple):
    """A dataset, an evaluation on it, and where a sample goes."""

    dataset: Dataset
    evaluation: Path
    sample: Path


def other(label: str) -> str:
    return LABELS[label == LABELS[0]]


def true_label(n: int) -> str:
    return LABELS[n % 2]


def given_label(n: int) -> str:
    """Every tenth label is wrong."""
    return other(true_label(n)) if n % 10 == 0 else true_label(n)


def answer(n: int) -> str:
    """The adapter repeats every second mistake of the labels, and makes four others."""
    if n % 20 == 0:
        return given_label(n)
    return other(true_label(n)) if n % 50 == 7 else true_label(n)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    held = [Example(f"h{n:03}", f"=message number {n}", given_label(n)) for n in range(HELD)]
    rest = [Example(f"x{n}", f"another {n}", LABELS[n % 2]) for n in range(4)]
    dataset = write_dataset(
        tmp_path / "data",
        name="n",
        taxonomy=TAXONOMY,
        splits={"train": rest[:2], "validation": rest[2:], "holdout": held},
    )
    folder = tmp_path / EVALUATION_FOLDER
    folder.mkdir()
    write_evaluation(folder, dataset)
    return Site(dataset, folder, tmp_path / "audit.jsonl")


def write_evaluation(folder: Path, dataset: Dataset, *, in_threads: bool = False) -> None:
    """Write an evaluation of answers with a confidence of 0.9, of which ten each are in a thread
    or all independent."""
    held = range(HELD)
    logprobs = np.log([[0.9 if label == answer(n) else 0.1 for label in LABELS] for n in held])
    limits = Thresholds(0.5, 0.5)
    holdout = predict(
        [f"h{n:03}" for n in held], [given_label(n) for n in held], logprobs, [True] * HELD,
        outputs=Outputs(LABELS), temperature=1.0, limits=limits,
        groups=[n % 20 for n in held] if in_threads else None,
    )  # fmt: skip
    adapter = EvaluatedAdapter(name="toy", digest="ab" * 32, path="adapter")
    setup = Setup(
        "2026-06-01T12:00:00Z", adapter=adapter, dataset=describe_dataset(dataset),
        outputs=Outputs(LABELS), temperature=1.0, limits=limits, wanted_precision=0.9,
        speeds=(),
    )  # fmt: skip
    PREDICTIONS.write(folder, holdout)
    VALIDATION.write(folder, holdout)
    EVALUATION.write(folder, summarize(setup, Predictions(holdout, holdout, None, None)))


def draw(site: Site, *options: object) -> dict[str, object]:
    folder = site.dataset.directory
    code, result, error = call(
        "tasks", folder, "--for", "audit", "--out", site.sample, "--json", *options
    )
    assert code == 0, error
    return result


def decide(site: Site, change: Callable[[list[dict[str, str]]], object] = lambda _: None) -> Path:
    """Give every message its true label, then apply the test's change; return the decisions."""
    answers = [
        Answer(
            task.message_id, task.message_sha256, "relabel", true_label(int(task.message_id[1:])),
            task_id=task.id, purpose=task.purpose, batch=task.batch,
        )
        for task in read_tasks(site.sample)
    ]  # fmt: skip
    path = site.sample.with_name("decisions.csv")
    save_answers(path, answers)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def audit(site: Site, decisions: Path) -> tuple[int, dict[str, Any], str]:
    return call("audit", site.evaluation, "--decisions", decisions, "--json")


def test_the_sample_is_blind_private_and_counted(site: Site) -> None:
    """It has messages, but no labels and no answers; its size gives an interval of three points;
    the opening is recorded."""
    result = draw(site)
    tasks = read_tasks(site.sample)
    assert result["count"] == len(tasks) == 132
    assert {(task.label, task.suggested) for task in tasks} == {(None, None)}
    text = site.sample.read_text(encoding="utf-8")
    assert not any(label in text for label in LABELS)
    assert stat.S_IMODE(site.sample.stat().st_mode) == 0o640
    [opening] = list_openings(site.dataset)
    assert opening["purpose"] == "audit"
    assert (site.dataset.directory.parent / "holdout-openings.jsonl").is_file()


def test_a_larger_sample_contains_the_smaller_and_no_file_is_overwritten(site: Site) -> None:
    """The refusal comes before the hold-out is opened."""
    draw(site, "--size", 40)
    code, _, error = call("tasks", site.dataset.directory, "--for", "audit", "--out", site.sample)
    assert code == 2
    assert "may contain a reviewer's work" in error
    assert len(list_openings(site.dataset)) == 1
    small = {task.message_id for task in read_tasks(site.sample)}
    site.sample.unlink()
    draw(site, "--size", 60)
    assert small < {task.message_id for task in read_tasks(site.sample)}


def test_a_complete_audit_finds_the_true_accuracy(site: Site) -> None:
    draw(site, "--size", HELD)
    code, result, error = audit(site, decide(site))
    assert code == 0, error
    assert result["label_errors"] == 20
    assert result["label_error_rate_interval_95"] == [0.1, 0.1]
    assert (result["gained"], result["lost"]) == (10, 10)
    true = sum(answer(n) == true_label(n) for n in range(HELD)) / HELD
    assert result["corrected_accuracy"] == pytest.approx(true)
    assert AUDIT.read(site.evaluation).to_json() == result
    assert "message number" not in (site.evaluation / "audit.json").read_text(encoding="utf-8")


def test_messages_of_threads_are_fewer_for_the_corrected_accuracy(site: Site) -> None:
    write_evaluation(site.evaluation, site.dataset, in_threads=True)
    draw(site, "--size", HELD)
    _, result, _ = audit(site, decide(site))
    effect = EVALUATION.read(site.evaluation).design_effect
    assert effect > 1.05
    independent = HELD / effect
    right = result["corrected_accuracy"] * independent
    assert result["corrected_accuracy_interval_95"] == pytest.approx(wilson(right, independent))


def test_a_message_that_no_label_fits_is_an_error_of_label_and_answer(site: Site) -> None:
    draw(site, "--size", HELD)

    def none_fits(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["id"] == "h001")
        row.update(decision="drop", new_label="")

    _, result, _ = audit(site, decide(site, none_fits))
    assert (result["label_errors"], result["lost"]) == (21, 11)
    assert {"given": "payment", "true": None, "messages": 1} in result["relabelled"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.pop(3), "1 messages of the sample are missing"),
        (
            lambda rows: [row.update(batch="0" * 16 + row["batch"][16:]) for row in rows],
            "a sample of hold-out 0000000000000000",
        ),
        (lambda rows: rows[3].update(decision="accept", new_label=""), "csv:5: an audit is blind"),
    ],
)
def test_an_incomplete_or_altered_sample_is_refused(
    site: Site, change: Callable[[list[dict[str, str]]], object], said: str
) -> None:
    """A decision that accepts a label which nobody saw is one too."""
    draw(site, "--size", 40)
    code, _, error = audit(site, decide(site, change))
    assert code == 2
    assert said in error
    assert not (site.evaluation / "audit.json").exists()


def test_all_problems_of_a_sample_are_reported_at_once(site: Site) -> None:
    draw(site, "--size", 40)

    def change(rows: list[dict[str, str]]) -> None:
        rows[0]["decision"] = rows[8]["decision"] = ""
        rows[3]["new_label"] = "refunds"
        rows[5]["batch"] = "x"
        rows[7]["id"] = "1,2E+15"

    code, _, error = audit(site, decide(site, change))
    assert code == 2
    said = ("csv:5: new_label is not a label", "csv:7: the column 'batch'",
            "csv:9: a spreadsheet changed the id", "3 messages of the sample")  # fmt: skip
    assert [text for text in said if text not in error] == []
    assert "refunds" not in error
