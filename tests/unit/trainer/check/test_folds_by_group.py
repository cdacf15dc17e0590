"""No message is judged by a model that learnt another of the same thread or customer."""

from __future__ import annotations

import csv
import json
import random
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.trainer_world import call
from tests.unit.trainer.check.shop import THINGS, make_examples
from tests.unit.trainer.check.test_folds import LETTERS, share_found
from trainer.check.duplicates import number_clusters, number_groups
from trainer.check.finding import SUSPECTS
from trainer.check.run import CheckSettings, check_dataset
from trainer.dataset.extra_files import GROUPS, read_groups
from trainer.dataset.folder import Dataset, Example, open_dataset, open_holdout
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY

pytestmark = pytest.mark.slow

MESSAGES, WRONG = 4, 6
NAMES = sorted(THINGS)


def by_customer(seed: int) -> tuple[list[Example], dict[str, int], set[str]]:
    """Return messages of customers who write four each and sign them, the customer's number by
    message, and the ids of six customers' messages, which are under a wrong label: one mailbox
    that was filed wrongly as a whole."""
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
            if number < WRONG // len(NAMES):
                group = [replace(one, label=NAMES[(place + 1) % len(NAMES)]) for one in group]
                wrong |= {one.id for one in group}
            customer |= dict.fromkeys((one.id for one in group), number * len(NAMES) + place)
            examples += group
    return examples, customer, wrong


def test_wrong_labels_on_a_customers_messages_are_found() -> None:
    """Simulated with known truth, five times. None is a near-duplicate of another, so that clusters
    alone deal a customer's messages into several folds, where they vouch for each other."""
    before, after = [], []
    for seed in range(5):
        examples, customer, wrong = by_customer(seed)
        alone = number_clusters(examples, SIMILARITY)
        assert len(set(alone)) == len(examples)
        together = number_clusters(examples, SIMILARITY, customer)
        assert len(set(together)) == len(set(customer.values()))
        before.append(share_found(examples, wrong, alone))
        after.append(share_found(examples, wrong, together))
    assert np.mean(before) <= 0.3
    assert np.mean(after) >= 0.8


def test_a_chain_of_near_copies_and_groups_is_one() -> None:
    """Two near-copies of two customers bring all that these wrote into one fold."""
    messages = ["where is my parcel from monday", "where is my parcel from monday ok", "a b c d"]
    examples = [Example(f"m{at}", text, "refund") for at, text in enumerate([*messages, "e f g h"])]
    assert len(set(number_clusters(examples, SIMILARITY))) == 3
    united = number_clusters(examples, SIMILARITY, {"m0": 0, "m2": 0, "m1": 1, "m3": 1})
    assert len(set(united)) == 1


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Dataset, dict[str, int], set[str]]:
    """Return a dataset that the command split by customer, who wrote what, and what is wrong."""
    examples, customer, wrong = by_customer(1)
    taxonomy = tmp_path / "taxonomy.toml"
    labels = "".join(f'[[labels]]\nname = "{name}"\ndescription = "d"\n' for name in NAMES)
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
    """The whole way from the export: most wrong labels outside the hold-out are in the queue."""
    dataset, _, wrong = prepared
    checked = check_dataset(dataset, CheckSettings())
    there = {example.id for example in (*dataset.train, *dataset.validation)} & wrong
    found = {suspect.example.id for suspect in checked.suspects}
    assert len(there) >= 12
    assert len(found & there) >= 0.8 * len(there)
    [finding] = [finding for finding in checked.findings if finding.name == SUSPECTS]
    assert finding.figures["in_groups"] == len(dataset.train) + len(dataset.validation)


def test_the_dataset_holds_numbers_and_no_names(
    prepared: tuple[Dataset, dict[str, int], set[str]],
) -> None:
    """Who wrote together is known of every part, and no customer is named; the file is for owner
    and group, and its digest is the manifest's. No unit of the hold-out is in another part."""
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


def test_a_dataset_of_before_says_that_its_groups_are_not_known(
    make_dataset: Callable[..., Dataset],
) -> None:
    """It was split by group and holds none: checked as it was, with a sentence that says so."""
    split = {"by": "group", "groups": {"groups": 3}}
    checked = check_dataset(make_dataset(split=split), CheckSettings())
    [finding] = [finding for finding in checked.findings if finding.name == SUSPECTS]
    assert finding.figures["in_groups"] is None
    assert "Prepare it again" in finding.advice
    plain = check_dataset(make_dataset(), CheckSettings())
    [finding] = [finding for finding in plain.findings if finding.name == SUSPECTS]
    assert finding.figures["in_groups"] == 0
    assert json.dumps(finding.figures)
