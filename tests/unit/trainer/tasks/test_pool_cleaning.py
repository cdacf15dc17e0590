"""Messages that may be asked about are cleaned as the dataset was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.dataset.folder import Dataset, open_holdout, write_dataset
from trainer.errors import BadInput
from trainer.tasks.make import make_pool
from worker.contract.text import message_sha256

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
    """It comes with its quotation and signature, which the dataset is without."""
    live = {f"l{at}": f"{each.message}{TAIL}" for at, each in enumerate(stripped.train[:9])}
    with pytest.raises(BadInput, match="no message is left"):
        make_pool(stripped, live)
    pool = make_pool(stripped, live | {"new": f"zq wholly unlike any other kx{TAIL}"})
    assert [(each.id, each.message) for each in pool.examples] == [
        ("new", "zq wholly unlike any other kx")
    ]


@pytest.mark.parametrize("form", [lambda text: f"{text}{TAIL}", str])
def test_a_decision_on_either_form_is_known(stripped: Dataset, form: Callable[[str], str]) -> None:
    """The desk decides on items as they came, and on tasks that are clean."""
    text = "zq wholly unlike any other kx"
    told = {message_sha256(form(text))}
    with pytest.raises(BadInput, match="no message is left"):
        make_pool(stripped, {"new": f"{text}{TAIL}"}, told_sha256=told)
