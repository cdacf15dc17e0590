"""The choice of messages to ask about: uncertain, diverse, and none twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer.check.duplicates import fingerprint
from trainer.dataset.folder import Dataset, open_holdout, write_dataset
from trainer.errors import BadInput
from trainer.tasks.make import Floats, choose_batch, make_pool, one_of_each
from worker.contract.text import message_sha256


def a_pool(groups: int = 12, each: int = 20, dimensions: int = 24) -> tuple[Floats, Floats]:
    """Return probabilities and unit features of messages in tight groups, of which the first half
    is uncertain and the second certain."""
    draw = np.random.default_rng(3)
    centres = np.eye(groups, dimensions)
    features = np.repeat(centres, each, axis=0) + draw.normal(0, 0.01, (groups * each, dimensions))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    hard = np.arange(groups * each) < groups * each // 2
    sure = np.where(hard, 0.4, 0.98) + draw.uniform(0, 0.01, len(hard))
    probabilities = np.stack([sure, (1 - sure) * 0.8, (1 - sure) * 0.2], axis=1)
    return probabilities, features


def test_what_the_model_is_sure_of_is_not_asked() -> None:
    probabilities, features = a_pool()
    x = features.astype(np.float32)
    chosen, again, other = (choose_batch(probabilities, x, 12, seed=seed) for seed in (1, 1, 2))
    assert len(set(chosen)) == 12
    assert max(chosen) < 120
    assert chosen == again != other


def test_a_batch_holds_unlike_messages() -> None:
    """Of six groups of hard messages, a batch of six covers at least five; by margin alone it would
    cover two or three."""
    probabilities, features = a_pool()
    spread = choose_batch(probabilities, features.astype(np.float32), 6, seed=1, width=20)
    assert len({at // 20 for at in spread}) >= 5


@pytest.mark.parametrize("size", [1, 5, 30])
def test_copies_fill_a_batch_only_where_nothing_else_is_left(size: int) -> None:
    probabilities = np.full((30, 3), 1 / 3)
    features = np.full((30, 4), 0.5, dtype=np.float32)
    assert len(set(choose_batch(probabilities, features, size, seed=0, width=30))) == size


def test_no_message_twice_and_near_duplicates_once() -> None:
    keys = [
        "where is my parcel number seventy",
        "where is my parcel number seventy",
        "where is my parcel number seventy?!",
        "i want my money back for the broken lamp",
        "please cancel the order of yesterday evening",
    ]
    known = [fingerprint("i want my money back for the broken lamps")]
    assert one_of_each(keys, known) == [0, 4]
    assert one_of_each(keys[3:4], [fingerprint(keys[3])]) == []


TAIL = "\n\nOn 3 Jun 2024 at 10:12, Ann wrote:\n> which parcel\n\nBest regards,\nBob Bobson"


@pytest.fixture
def stripped(tmp_path: Path, sealed: Dataset) -> Dataset:
    held = open_holdout(sealed, purpose="test", subject="test")
    return write_dataset(
        tmp_path / "stripped", name="s", taxonomy=sealed.taxonomy,
        splits={"train": sealed.train, "validation": sealed.validation, "holdout": held},
        settings={"strip_quotes": True, "strip_signatures": True},
    )  # fmt: skip


def test_a_message_that_the_dataset_holds_is_not_asked_about(stripped: Dataset) -> None:
    live = {f"l{at}": f"{each.message}{TAIL}" for at, each in enumerate(stripped.train[:9])}
    with pytest.raises(BadInput, match="no message is left"):
        make_pool(stripped, live)
    pool = make_pool(stripped, live | {"new": f"zq wholly unlike any other kx{TAIL}"})
    assert [(each.id, each.message) for each in pool.examples] == [
        ("new", "zq wholly unlike any other kx")
    ]


@pytest.mark.parametrize("form", [lambda text: f"{text}{TAIL}", str])
def test_a_decision_on_either_form_is_known(stripped: Dataset, form: Callable[[str], str]) -> None:
    text = "zq wholly unlike any other kx"
    told = {message_sha256(form(text))}
    with pytest.raises(BadInput, match="no message is left"):
        make_pool(stripped, {"new": f"{text}{TAIL}"}, asked_sha256=told)
