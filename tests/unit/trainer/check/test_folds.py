"""No message is judged by a model that was trained on it or on a near-copy."""

from __future__ import annotations

import csv
import random
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.trainer_world import call
from tests.unit.trainer.check.shop import THINGS, make_examples
from trainer.check.duplicates import number_clusters, number_groups
from trainer.check.run import CheckSettings, check_dataset
from trainer.check.suspects import assign_folds, find_suspects, predict_out_of_fold
from trainer.dataset.extra_files import GROUPS, read_groups
from trainer.dataset.folder import Dataset, Example, open_dataset, open_holdout
from trainer.errors import BadInput

pytestmark = pytest.mark.slow

COPIES, WRONG = 4, 6
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def copied(seed: int) -> tuple[list[Example], set[str]]:
    """Return messages of which every tenth has three near-copies, and the ids of six such groups
    with a wrong label, the same for each copy: a template that was labelled wrong."""
    rng = random.Random(seed)
    single = [replace(example, sublabel=None) for example in make_examples(60, seed)]
    names = sorted(THINGS)
    chosen = rng.sample(range(len(single)), len(single) // 10)
    examples: list[Example] = []
    wrong: set[str] = set()
    for at, example in enumerate(single):
        # A name of its own, as templates have: what a model that saw one copy knows the others by.
        name = "".join(rng.choices(LETTERS, k=30))
        copies = COPIES if at in chosen else 1
        group = [
            replace(example, id=f"{example.id}-{copy}", message=f"{name} {example.message} {copy}")
            for copy in range(copies)
        ]
        if at in chosen[:WRONG]:
            label = names[(names.index(example.label) + 1) % len(names)]
            group = [replace(one, label=label) for one in group]
            wrong |= {one.id for one in group}
        examples += group
    return examples, wrong


def share_found(examples: list[Example], wrong: set[str], clusters: NDArray[np.int64]) -> float:
    judged = predict_out_of_fold(
        examples, sorted(THINGS), clusters=clusters, embeddings=None, seed=1
    )
    found = {suspect.example.id for suspect in find_suspects(examples, judged, frozenset())}
    return len(found & wrong) / len(wrong)


def test_a_wrong_label_on_four_near_copies_is_found() -> None:
    """Simulated with known truth, five times. With each message alone in its fold, the copies
    confirm each other and hardly any is found."""
    before, after = [], []
    for seed in range(5):
        examples, wrong = copied(seed)
        clusters = number_clusters(examples)
        before.append(share_found(examples, wrong, np.arange(len(examples))))
        after.append(share_found(examples, wrong, clusters))
    assert np.mean(before) <= 0.1
    assert np.mean(after) >= 0.8


@pytest.mark.parametrize("sizes", [{0: [15], 1: [15]}, {0: [50]}, {at: [1, 1] for at in range(9)}])
def test_fewer_clusters_or_rows_than_folds_are_dealt_out_too(sizes: dict[int, list[int]]) -> None:
    targets = [target for target, members in sizes.items() for size in members for _ in range(size)]
    every = [size for members in sizes.values() for size in members]
    clusters = np.repeat(np.arange(len(every)), every)
    folds = assign_folds(np.array(targets), clusters, 1)
    assert len(set(folds)) == min(5, len(every))
    assert len(set(zip(folds, clusters, strict=True))) == len(every)


def test_a_label_of_nothing_but_copies_of_each_other_is_not_doubted() -> None:
    """If it is hidden entirely, the model does not know the label."""
    template = "your weekly newsletter of the shop: offers, news, recipes, number"
    examples = [replace(example, sublabel=None) for example in make_examples(40, 1)]
    examples += [Example(f"n{at}", f"{template} {at}", "newsletter") for at in range(20)]
    clusters = number_clusters(examples)
    assert len(set(clusters[-20:])) == 1
    names = [*sorted(THINGS), "newsletter"]
    judged = predict_out_of_fold(examples, names, clusters=clusters, embeddings=None, seed=1)
    assert judged.judged.sum() == len(examples) - 20
    doubted = find_suspects(examples, judged, frozenset())
    assert not [found for found in doubted if found.example.label == "newsletter"]


# No message is judged by a model that learnt another of the same thread
# or customer.


MESSAGES, WRONG_IN_GROUPS = 4, 6
NAMES = sorted(THINGS)


def by_customer(seed: int) -> tuple[list[Example], dict[str, int], set[str]]:
    """Return messages of customers who wrote and signed four each, the customer's number by
    message, and the ids of six customers' messages, which have a wrong label."""
    rng = random.Random(seed)
    singles = [replace(example, sublabel=None) for example in make_examples(100, seed)]
    by_label = {name: [one for one in singles if one.label == name] for name in NAMES}
    examples: list[Example] = []
    customer: dict[str, int] = {}
    wrong: set[str] = set()
    for number, at in enumerate(range(0, 100, MESSAGES)):
        for place, label in enumerate(NAMES):
            group = by_label[label][at : at + MESSAGES]
            signature = " ".join("".join(rng.choices(LETTERS, k=10)) for _ in range(3))
            group = [replace(one, message=f"{one.message} {signature}") for one in group]
            if number < WRONG_IN_GROUPS // len(NAMES):
                group = [replace(one, label=NAMES[(place + 1) % len(NAMES)]) for one in group]
                wrong |= {one.id for one in group}
            customer |= dict.fromkeys((one.id for one in group), number * len(NAMES) + place)
            examples += group
    return examples, customer, wrong


def test_a_chain_of_near_copies_and_groups_is_one() -> None:
    messages = ["where is my parcel from monday", "where is my parcel from monday ok", "a b c d"]
    examples = [Example(f"m{at}", text, "refund") for at, text in enumerate([*messages, "e f g h"])]
    assert len(set(number_clusters(examples))) == 3
    united = number_clusters(examples, {"m0": 0, "m2": 0, "m1": 1, "m3": 1})
    assert len(set(united)) == 1


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Dataset, dict[str, int], set[str]]:
    """Return a dataset split by customer, the customers by message, and the wrong ids."""
    examples, customer, wrong = by_customer(1)
    taxonomy = tmp_path / "taxonomy.toml"
    labels = "".join(f'[[labels]]\nname = "{name}"\n' for name in NAMES)
    taxonomy.write_text(f'name = "shop"\nversion = "1"\n{labels}', encoding="utf-8")
    with (tmp_path / "export.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "message", "label", "customer"))
        writer.writerows(
            (one.id, one.message, one.label, f"Ann Example {customer[one.id]}") for one in examples
        )
    code, _, errors = call(
        *("prepare", "--input", tmp_path / "export.csv", "--taxonomy", taxonomy),
        *("--split", "group", "--group-column", "customer", "--out", tmp_path / "data", "--json"),
    )
    assert code == 0, errors
    return open_dataset(tmp_path / "data"), customer, wrong


def test_check_deals_groups_whole_after_a_split_by_group(
    prepared: tuple[Dataset, dict[str, int], set[str]],
) -> None:
    dataset, _, wrong = prepared
    checked = check_dataset(dataset, CheckSettings())
    there = {example.id for example in (*dataset.train, *dataset.validation)} & wrong
    found = {suspect.example.id for suspect in checked.suspects}
    assert len(there) >= 12
    assert len(found & there) >= 0.8 * len(there)


def test_the_dataset_holds_numbers_and_no_names(
    prepared: tuple[Dataset, dict[str, int], set[str]],
) -> None:
    """groups.jsonl has no customer's name, and no group is in two splits."""
    dataset, customer, _ = prepared
    groups = read_groups(dataset)
    assert groups is not None
    seen = {example.id for example in (*dataset.train, *dataset.validation)}
    held = {example.id for example in open_holdout(dataset, purpose="test", subject="test")}
    assert held
    assert seen < groups.keys() <= seen | held
    assert {groups[id_] for id_ in seen}.isdisjoint(groups[id_] for id_ in groups.keys() & held)
    assert {each for each in number_groups(dataset, dataset.validation) if each is not None}
    pairs = {(groups[id_], customer[id_]) for id_ in seen}
    assert len(pairs) == len({groups[id_] for id_ in seen}) == len({customer[id_] for id_ in seen})
    path = dataset.directory / GROUPS
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for file in dataset.directory.iterdir():
        assert "Ann" not in file.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="altered since it was prepared"):
        read_groups(dataset)
