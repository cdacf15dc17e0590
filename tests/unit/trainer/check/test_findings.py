"""The findings of each check, and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.unit.trainer.check.shop import THINGS, make_examples
from trainer.check.duplicates import (
    check_conflicts,
    check_leakage,
    find_conflicts,
    fingerprint,
    holdout_fingerprints,
)
from trainer.check.findings import (
    CODES,
    LENGTHS,
    Finding,
    check_balance,
    check_base,
    check_counts,
    check_holdout_size,
    check_names,
)
from trainer.cli.main import app
from trainer.dataset.folder import Dataset, Example, count_openings, open_dataset
from worker.contract import Label, Taxonomy

pytestmark = pytest.mark.slow


def test_few_examples_warn_and_very_few_fail(taxonomy: Taxonomy) -> None:
    examples = make_examples(30, 1)
    assert check_counts(examples, taxonomy, 25).verdict == "ok"
    finding = check_counts(examples, taxonomy, 31)
    assert finding.verdict == "warn"
    assert all(name in finding.advice for name in THINGS)
    refunds = [example for example in examples if example.label == "refund"]
    fewer = [example for example in examples if example.label != "refund"]
    finding = check_counts([*fewer, *refunds[:19]], taxonomy, 25)
    assert finding.verdict == "fail"
    assert "messages for refund, or drop" in finding.advice


def test_a_label_that_drowns_the_others_and_a_small_holdout_are_told(taxonomy: Taxonomy) -> None:
    even = make_examples(10, 1)
    assert check_balance(even, taxonomy).verdict == "ok"
    assert check_balance(even, taxonomy).figures["entropy"] == 1.0
    more = [replace(even[0], id=f"x{at}") for at in range(95)]
    assert check_balance([*even, *more], taxonomy).verdict == "warn"
    holdout = check_holdout_size({"a": 450, "b": 450})
    assert holdout.verdict == "ok"
    assert "±2.0%" in holdout.found
    assert check_holdout_size({"a": 871, "b": 29}).verdict == "warn"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("cardPayments", "payment-card"),
        ("payment_declined", "payment_decline"),
    ],
)
def test_names_that_people_mix_up_are_told(left: str, right: str) -> None:
    taxonomy = Taxonomy("t", "1", "", (Label(left, "x"), Label(right, "y"), Label("misc", "z")))
    finding = check_names(taxonomy)
    assert finding.verdict == "warn"
    assert [pair[:2] for pair in finding.figures["alike"]] == [[left, right]]


def test_copies_under_two_labels_fail_and_near_copies_are_listed() -> None:
    examples = [
        Example("a", "Where is my parcel?", "order_tracking"),
        Example("b", "where is  my PARCEL?", "refund"),
        Example("c", "Where is my parcel?", "order_tracking"),
        Example("d", "please tell me when I will get my money back", "refund"),
        Example("e", "please tell me when I will get my money back!!", "payment"),
    ]
    found = find_conflicts(examples, [fingerprint(example.message) for example in examples])
    assert [(pair.first.id, pair.second.id, pair.exact) for pair in found] == [
        ("a", "b", True),
        ("b", "c", True),
        ("d", "e", False),
    ]
    finding = check_conflicts(found, len(examples))
    assert finding.verdict == "fail"
    assert (finding.figures["exact_messages"], finding.figures["near_messages"]) == (3, 2)
    assert check_conflicts((), 5).verdict == "ok"
    assert check_conflicts(found[:1], 1000).verdict == "warn"


def leak(make_dataset: Callable[..., Dataset], **splits: list[Example]) -> Finding:
    dataset = make_dataset(**splits)
    before = count_openings(dataset)
    prints = holdout_fingerprints(dataset)
    assert count_openings(dataset) == before
    opened = [
        (name, examples, [fingerprint(example.message) for example in examples])
        for name, examples in (("train", dataset.train), ("validation", dataset.validation))
    ]
    return check_leakage(opened, prints)


@pytest.mark.parametrize(
    ("reword", "kind"),
    [
        pytest.param(lambda text: f" {text.upper()}", "exact", id="other letters and blanks"),
        # One in 36 is above one in a hundred.
        pytest.param(lambda text: f"{text} so", "near", id="a rewording"),
    ],
)
def test_a_holdout_message_in_training_fails_without_opening_the_holdout(
    make_dataset: Callable[..., Dataset], reword: Callable[[str], str], kind: str
) -> None:
    assert leak(make_dataset).verdict == "ok"
    holdout = make_examples(12, 3, 2000)
    copy = replace(holdout[0], id="leak", message=reword(holdout[0].message))
    finding = leak(make_dataset, train=[*make_examples(40, 1), copy], holdout=holdout)
    assert finding.verdict == "fail"
    expected = {"exact": 0, "near": 0, "ids": ["leak"]} | {kind: 1}
    assert finding.figures["train_holdout"] == expected


def test_fingerprints_tell_no_text(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset()
    words = {word for words in THINGS.values() for word in words}
    for found in holdout_fingerprints(dataset):
        assert len(found.key) == 64
        assert all(len(shingle) == 8 for shingle in found.shingles)
        assert not any(word in repr(found) for word in words)


# The dataset under a base's own tokenizer.


SHORT = [Example(f"s{n}", "where is my parcel", "a") for n in range(99)]
LONG = Example("long", "where is my parcel " * 40, "a")


def verdicts(
    examples: list[Example], taxonomy: Taxonomy, base: Path, **more: Any
) -> dict[str, Finding]:
    settings: dict[str, Any] = {"max_message_tokens": 32, "redaction": None, **more}
    return {finding.name: finding for finding in check_base(examples, taxonomy, base, **settings)}


def test_messages_over_the_budget_are_counted_by_the_real_tokenizer(
    tiny_base: Path, taxonomy: Taxonomy
) -> None:
    assert verdicts([*SHORT, LONG], taxonomy, tiny_base)[LENGTHS].verdict == "ok"
    found = verdicts([*SHORT, LONG, LONG], taxonomy, tiny_base)[LENGTHS]
    assert (found.verdict, found.figures["shortened"]) == ("warn", 2)
    assert found.figures["shortened_ids"] == ["long", "long"]
    assert found.figures["max"] == 32
    assert verdicts([SHORT[0], LONG], taxonomy, tiny_base)[LENGTHS].verdict == "fail"
    found = verdicts([*SHORT, Example("e", " \u200b", "a")], taxonomy, tiny_base)[LENGTHS]
    assert (found.verdict, found.figures["empty_ids"]) == ("fail", ["e"])


def test_every_label_has_a_code_of_one_token_or_it_fails(
    tiny_base: Path, taxonomy: Taxonomy
) -> None:
    found = verdicts(SHORT, taxonomy, tiny_base)[CODES]
    assert found.verdict == "ok"
    assert set(found.figures["codes"]) == set(taxonomy.names)
    for count, verdict in ((77, "ok"), (500, "fail")):
        many = Taxonomy("many", "1", "", tuple(Label(f"label {n}", "x") for n in range(count)))
        found = verdicts(SHORT, many, tiny_base)[CODES]
        assert found.verdict == verdict
        assert f"{count} labels" in found.found


# ``clerk-trainer check`` as its users meet it.


Planted = tuple[Dataset, frozenset[str]]


def check(dataset: Dataset | Path, *flags: str) -> Result:
    folder = dataset if isinstance(dataset, Path) else dataset.directory
    return CliRunner().invoke(
        app, ["check", str(folder), "--embeddings", "none", "--floor", "20", *flags]
    )


def test_a_check_writes_figures_and_a_queue_and_says_what_to_do(planted: Planted) -> None:
    dataset, wrong = planted
    done = check(dataset)
    assert done.exit_code == 0, done.output
    for words in ("suspected wrong labels", "Review queue", "→ Work through the review queue"):
        assert words in " ".join(done.stdout.split())
    record = json.loads((dataset.directory / "check.json").read_text())
    assert record["schema"] == "check/2"
    assert record["dataset"]["digest"] == dataset.digest
    assert record["verdict"] == "warn"
    texts = [example.message for example in (*dataset.train, *make_examples(12, 3, 2000))]
    raw = (dataset.directory / "check.json").read_text()
    assert not any(text in raw or text in done.output for text in texts)
    with (dataset.directory.parent / "shop-review.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows[: len(wrong)]} == wrong
    assert open_dataset(dataset.directory).digest == dataset.digest
    assert count_openings(dataset) == 0


def test_a_check_that_fails_exits_3_after_writing(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    dataset = make_dataset(make_examples(40, 1)[:85])
    wrong = check(dataset, "--base", str(tmp_path))
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)
    assert "cannot read the base's tokenizer" in wrong.stderr
    done = check(dataset)
    assert done.exit_code == 3
    assert done.stderr.count("\n") == 1
    assert "failed: examples per label" in done.stderr
    record = json.loads((dataset.directory / "check.json").read_text())
    assert record["verdicts"]["examples per label"] == "fail"
    assert (dataset.directory.parent / "shop-review.csv").exists()


def test_decisions_are_kept_or_nothing_is_done(planted: Planted) -> None:
    queue = planted[0].directory.parent / "shop-review.csv"
    check(planted[0])
    with queue.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["decision"] = "accept"
    with queue.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    (planted[0].directory / "check.json").unlink()
    before = queue.read_bytes()
    done = check(planted[0])
    assert done.exit_code == 2
    assert "1 rows with decisions" in done.stderr
    assert queue.read_bytes() == before
    assert not (planted[0].directory / "check.json").exists()
    done = check(planted[0], "--update", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["decisions_kept"] == 1
