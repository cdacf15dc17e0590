"""Wrong labels are found, ranked and explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.trainer.check.shop import THINGS, make_examples
from trainer.check import run
from trainer.check import suspects as out_of_fold
from trainer.check.run import CheckSettings, check_dataset
from trainer.check.suspects import (
    OutOfFold,
    assign_folds,
    check_sublabels,
    check_suspects,
    cross_val_predict,
    find_suspects,
    fit_predict,
    group_sublabels,
    predict_out_of_fold,
    text_features,
    unit_rows,
)
from trainer.dataset.folder import Dataset, Example

pytestmark = pytest.mark.slow

Planted = tuple[Dataset, frozenset[str]]


def test_planted_errors_are_found_first_with_the_right_suggestion(planted: Planted) -> None:
    dataset, wrong = planted
    checked = check_dataset(dataset, CheckSettings())
    first = checked.suspects[: len(wrong)]
    assert {suspect.example.id for suspect in first} == wrong
    truth = {example.id: example.label for example in make_examples(40, 1)}
    assert all(suspect.suggested == truth[suspect.example.id] for suspect in first)
    sure = [suspect.confidence for suspect in checked.suspects]
    assert sure == sorted(sure, reverse=True)
    assert all(
        each.suggested in each.reason and each.example.label in each.reason for each in first
    )
    # The evidence is three messages that nobody doubts.
    doubted = {suspect.example.id for suspect in checked.suspects}
    for suspect in checked.suspects:
        assert len({other.id for other in suspect.similar}) == 3
        assert not doubted & {other.id for other in suspect.similar}
    assert [other.label for other in first[0].similar] == [first[0].suggested] * 3
    again = check_dataset(dataset, CheckSettings())
    assert again.record("q.csv", 0) == checked.record("q.csv", 0)
    assert again.suspects == checked.suspects


def test_what_a_person_vouched_for_is_not_doubted_again(
    planted: Planted, make_dataset: Callable[..., Dataset]
) -> None:
    dataset, wrong = planted
    first, *_ = sorted(wrong)
    made = [
        {"id": first, "decision": "accept"},
        {"id": "gone", "decision": "drop"},
    ]
    again = make_dataset(dataset.train, dataset.validation, decisions={"made": made})
    checked = check_dataset(again, CheckSettings())
    assert first not in {suspect.example.id for suspect in checked.suspects}
    assert wrong - {first} <= {suspect.example.id for suspect in checked.suspects}


def test_labels_without_sublabels_are_judged_as_well(make_dataset: Callable[..., Dataset]) -> None:
    train = [replace(example, sublabel=None) for example in make_examples(40, 1)]
    train[5] = replace(train[5], label="payment")
    validation = [replace(example, sublabel=None) for example in make_examples(10, 2, 1000)]
    checked = check_dataset(make_dataset(train, validation), CheckSettings())
    assert checked.suspects[0].example.id == train[5].id
    told = next(found for found in checked.findings if found.name == "suspected wrong labels")
    assert told.figures["detector"] == "TF-IDF, logistic regression over labels, 5 folds"
    assert checked.record("q.csv", 0).verdicts["sublabels"] == "skipped"


def test_sentence_embeddings_are_a_second_set_of_features(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = {example.message: example.label for example in make_examples(40, 1)}
    truth |= {example.message: example.label for example in planted[0].validation}
    examples = (*planted[0].train, *planted[0].validation)
    names = sorted(THINGS)

    def know(messages: list[str], directory: Path) -> np.ndarray:
        assert directory == Path("model")
        return np.eye(3, dtype=np.float32)[[names.index(truth[message]) for message in messages]]

    monkeypatch.setattr(out_of_fold, "embedding_features", know)
    monkeypatch.setattr(
        out_of_fold, "text_features", lambda messages: np.ones((len(messages), 1), np.float32)
    )
    alone = np.arange(len(examples))
    judged = predict_out_of_fold(examples, names, clusters=alone, embeddings=Path("model"), seed=1)
    assert "sentence embeddings" in judged.detector
    found = find_suspects(examples, judged, frozenset())
    assert {suspect.example.id for suspect in found} == planted[1]


def test_too_many_doubted_labels_fail_and_too_few_examples_are_not_judged(
    planted: Planted, make_dataset: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_MOST_SUSPECTS", 0.03)
    assert check_dataset(planted[0], CheckSettings()).record("q.csv", 0).verdict == "fail"
    few = make_dataset(make_examples(8, 1), make_examples(2, 2, 1000))
    verdicts = check_dataset(few, CheckSettings()).record("q.csv", 0).verdicts
    assert verdicts["suspected wrong labels"] == "skipped"
    assert verdicts["examples per label"] == "fail"


def test_no_row_is_judged_by_a_model_that_learnt_it() -> None:
    features = np.eye(40, dtype=np.float32)
    targets = np.arange(40) % 2
    found = cross_val_predict(
        features, targets, assign_folds(targets, np.arange(len(targets)), 1), 2
    )
    assert np.allclose(found, 0.5, atol=0.02)
    assert fit_predict(features, targets, features, 2)[np.arange(40), targets].min() > 0.7


def test_a_class_with_one_example_breaks_nothing() -> None:
    targets = np.array([0] * 10 + [1] * 10 + [2])
    features = np.random.default_rng(0).normal(size=(21, 4)).astype(np.float32)
    found = cross_val_predict(
        features, targets, assign_folds(targets, np.arange(len(targets)), 1), 3
    )
    assert found[20, 2] == 0
    assert np.allclose(found.sum(axis=1), 1)
    assert fit_predict(features, np.zeros(21, np.int64), features, 3)[:, 0].min() == 1


def test_a_sublabel_under_the_wrong_label_is_told(make_dataset: Callable[..., Dataset]) -> None:
    """Refunds under payments, all of one sublabel."""
    train = [
        replace(example, label="payment", sublabel="refund c") if at % 4 == 0 else example
        for at, example in enumerate(
            example if example.label != "refund" else replace(example, sublabel=f"refund {at % 2}")
            for at, example in enumerate(make_examples(60, 1))
        )
        if example.label == "refund" or at % 4
    ]
    dataset = make_dataset(train)
    judged = predict_out_of_fold(
        dataset.train,
        dataset.taxonomy.names,
        clusters=np.arange(len(dataset.train)),
        embeddings=None,
        seed=1,
    )
    finding = check_sublabels(dataset.train, judged)
    assert finding.verdict == "warn"
    first = finding.figures["misplaced"][0]
    told = (first["sublabel"], first["label"], first["reads_like"])
    assert told == ("refund c", "payment", "refund")


@pytest.mark.parametrize("messages", [["?!", "...", "🙏"], ["a", "b"], ["same", "same"]])
def test_features_of_odd_messages_are_finite_and_of_length_one(messages: list[str]) -> None:
    found = text_features(messages)
    assert found.shape[0] == len(messages)
    lengths = np.linalg.norm(found, axis=1)
    assert np.all(np.isclose(lengths, 1, atol=1e-5) | (lengths == 0))


def test_a_sublabel_under_two_labels_is_told_even_if_it_is_the_only_one_of_both() -> None:
    examples = [replace(example, sublabel="other") for example in make_examples(20, 1)]
    judged = predict_out_of_fold(
        examples, sorted(THINGS), clusters=np.arange(len(examples)), embeddings=None, seed=1
    )
    finding = check_sublabels(examples, judged)
    assert finding.verdict == "warn"
    assert finding.advice == "Put each sublabel under one label: other."


def test_sublabels_are_numbered_within_their_labels() -> None:
    index = {"a": 0, "b": 1}
    examples = [
        *(Example(f"1{n}", "", "a", "x") for n in range(6)),
        *(Example(f"2{n}", "", "b", "x") for n in range(6)),
        *(Example(f"3{n}", "", "b", f"rare{n}") for n in range(4)),
    ]
    groups, classes = group_sublabels(examples, index)
    assert groups is not None
    assert groups.tolist() == [0] * 6 + [2] * 6 + [1] * 4
    assert classes == (("a", "x"), ("b", None), ("b", "x"))
    assert group_sublabels([*examples[:6], Example("4", "", "b", "y")], index)[0] is None


@pytest.mark.parametrize(
    ("rows", "apart", "wrong", "told"),
    [(200, 3.0, 0.0, 0), (200, 4.0, 0.0, 0), (200, 4.0, 0.15, 5), (800, 4.0, 0.05, 5)],
)
def test_models_that_know_too_little_accuse_nobody(
    rows: int, apart: float, wrong: float, told: int
) -> None:
    """Six draws of eight labels: of few messages, all right, they doubt many and say so; slips that
    are there they find."""
    names = [f"label {number}" for number in range(8)]
    warned, doubted = 0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth = rng.permutation(np.arange(rows) % 8)
        points = rng.normal(size=(8, 24))[truth] * apart / np.sqrt(48)
        points += rng.normal(size=(rows, 24))
        slipped = rng.random(rows) < wrong
        own = np.where(slipped, (truth + rng.integers(1, 8, size=rows)) % 8, truth)
        features = unit_rows(points.astype(np.float32))
        found = cross_val_predict(features, own, assign_folds(own, np.arange(rows), 1), 8)
        judged = OutOfFold(
            tuple(names), own, np.maximum(found, 1e-9), features, np.ones(rows, np.bool_), "models"
        )
        examples = [Example(str(at), f"message {at}", names[label]) for at, label in enumerate(own)]
        suspects = find_suspects(examples, judged, ())
        nobody = np.zeros(rows, np.bool_)
        finding = check_suspects(suspects, judged, decided=nobody, most=0.2)
        warned += finding.verdict in {"warn", "fail"}
        doubted += len(suspects)
        assert finding.verdict != "ok" or "no label is shown to be wrong" in finding.found
    assert doubted > 0.01 * rows * 6
    assert warned >= told if told else warned <= 1
