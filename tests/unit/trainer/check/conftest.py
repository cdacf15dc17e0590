"""Small datasets with known faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.check.shop import THINGS, make_examples
from trainer.dataset.folder import Dataset, Example, write_dataset
from worker.contract import Label, Taxonomy


@pytest.fixture
def taxonomy() -> Taxonomy:
    return Taxonomy(
        "shop", "1", "", tuple(Label(name, f"all about {name}") for name in sorted(THINGS))
    )


MakeDataset = Callable[..., Dataset]


@pytest.fixture
def make_dataset(tmp_path: Path, taxonomy: Taxonomy) -> MakeDataset:
    """Return a function that writes a dataset; each split can be given."""

    def make(
        train: Sequence[Example] | None = None,
        validation: Sequence[Example] | None = None,
        holdout: Sequence[Example] | None = None,
        **facts: Any,
    ) -> Dataset:
        splits = {
            "train": make_examples(40, 1) if train is None else train,
            "validation": make_examples(10, 2, 1000) if validation is None else validation,
            "holdout": make_examples(12, 3, 2000) if holdout is None else holdout,
        }
        directory = tmp_path / "shop"
        return write_dataset(directory, name="shop", taxonomy=taxonomy, splits=splits, **facts)

    return make


@pytest.fixture
def planted(make_dataset: MakeDataset) -> tuple[Dataset, frozenset[str]]:
    """Return a dataset in which seven training labels are wrong, and their ids."""
    train = make_examples(40, 1)
    wrong = train[::18]
    names = sorted(THINGS)
    for example in wrong:
        label = names[(names.index(example.label) + 1) % len(names)]
        train[train.index(example)] = replace(example, label=label, sublabel=f"{label} a")
    return make_dataset(train), frozenset(example.id for example in wrong)
