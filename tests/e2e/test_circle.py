"""The whole cycle by commands: tasks, people, the desk's export, a proposal, a yes, a canary."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from desk.core.items import Queue
from desk.service import reviewing
from desk.store.database import Database
from tests.support.desk_world import DeskWorld, said
from tests.support.propose_world import Place, gates, make_place
from tests.support.tiny_encoder import make_tiny_encoder
from tests.support.tiny_messages import make_messages, write_tiny_taxonomy
from tests.support.trainer_world import call
from trainer.dataset.folder import open_dataset, open_holdout
from trainer.store.moves import read_history
from worker.contract.exchange import Task, task_id, write_tasks
from worker.contract.store import read_canary, read_pointer
from worker.contract.taxonomy import Taxonomy
from worker.contract.text import message_sha256

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


class Desk:
    def __init__(self, folder: Path, taxonomy: Path) -> None:
        self.url, self.taxonomy = f"sqlite:///{folder}/desk.db", taxonomy
        given = {"database.url": self.url, "project.taxonomy": taxonomy}
        given |= {"review.double_share": "0", "review.audit_double_share": "0"}
        self._flags = [word for key, value in given.items() for word in ("-s", f"{key}={value}")]

    def run(self, *words: object) -> str:
        command = [sys.executable, "-m", "desk", *map(str, words), *self._flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def decide_sample(self, drawn: list[tuple[str, str]]) -> None:
        """Have results of these messages in the audit sample, and one person decide them."""
        database = Database(self.url)
        world = DeskWorld(database, taxonomy=Taxonomy.from_toml(self.taxonomy))
        audit = {"origin": "audit", "sample_share": 0.05, "label": "refund", "scores": {}}
        world.add_all([(text, dict(audit)) for text, _ in drawn])
        bob, label_of = world.person("bob"), dict(drawn)
        while (item := reviewing.next_item(world.desk, bob, Queue())) is not None:
            label, request = label_of[item.text], f"sample-{item.item_id}"
            reviewing.decide(
                world.desk,
                bob,
                item.item_id,
                said(request, label),
            )
        database.close()

    def decide_all(self, label_of: dict[str, str]) -> int:
        """One reviewer decides both batches; return the number of messages."""
        database = Database(self.url)
        world = DeskWorld(database, taxonomy=Taxonomy.from_toml(self.taxonomy))
        ann, count = world.person("ann"), 0
        for queue in (Queue(batch_id=1), Queue(batch_id=2)):
            while (item := reviewing.next_item(world.desk, ann, queue)) is not None:
                assert item.text is not None
                label = label_of[item.text]
                reviewing.decide(
                    world.desk,
                    ann,
                    item.item_id,
                    said(world.request(), label),
                )
                count += 1
        database.close()
        return count


def tasks_of(place: Place, fresh: list[tuple[str, str]]) -> list[Task]:
    """Questions to reviewers: all labels of the training data, and messages without a label."""
    dataset = open_dataset(place.dataset)

    def task(id_: str, text: str, purpose: Any, label: str | None) -> Task:
        sha256 = message_sha256(text)
        return Task(
            schema="tasks/1", id=task_id(dataset.digest, purpose, sha256), message_id=id_,
            message_sha256=sha256, text=text, purpose=purpose, dataset=dataset.digest,
            batch=purpose, label=label, label_source=None if label is None else "export",
        )  # fmt: skip

    checks = [task(row.id, row.message, "check", row.label) for row in dataset.train]
    return checks + [task(f"new-{at}", text, "learn", None) for at, (text, _) in enumerate(fresh)]


def test_from_the_desks_export_to_a_canary_and_nothing_counts_twice(tmp_path: Path) -> None:
    """Decisions at the desk are learned, once, except those on the audit sample, which are held out
    or validate. The desk's answer is carried out, once. The next proposal finds the dataset of the
    adapter in service, and nothing new in the export."""
    taxonomy = write_tiny_taxonomy(tmp_path)
    base = make_tiny_encoder(tmp_path / "base", [text for text, _ in make_messages(40, 3)])
    place = make_place(tmp_path, "embedding-linear", base, taxonomy, make_messages)
    fresh, drawn = make_messages(8, 77), make_messages(10, 78)
    rows = {row.id: row.message for row in open_dataset(place.dataset).train}
    truth = {rows[id_]: label for id_, label in place.truth.items()} | dict(fresh)
    tasks = tmp_path / "tasks.jsonl"
    write_tasks(tasks, tasks_of(place, fresh))
    desk = Desk(tmp_path, taxonomy)
    desk.run("migrate")
    assert f"{len(truth)} tasks loaded" in desk.run("tasks", "load", tasks)
    assert desk.decide_all(truth) == len(truth)
    desk.decide_sample(drawn)
    decided, sample = tmp_path / "decided", tmp_path / "sample"
    dataset = open_dataset(place.dataset).digest
    desk.run("export", "--out", decided, "--project", dataset[:12])
    desk.run("export", "--out", sample)

    proposals = tmp_path / "proposals"
    files = tuple(
        word
        for folder in (decided, sample)
        for option, name in (("--decisions", "decisions.csv"), ("--messages", "messages.jsonl"))
        for word in (option, folder / name)
    )
    propose = (
        *("propose", "--store", place.store, "--recipe", place.recipe, "--base", base, "--json"),
        *("--dataset", place.dataset, "--dataset", proposals, *gates(), *files),
    )
    code, made, error = call(*propose, "--out", proposals / "1")
    assert code == 0, error
    assert made["verdict"] == "publish", made["reasons_against"]
    assert made["changes"]["new_in_train"] == len(fresh)
    changed = made["changes"]["train_relabelled"] + made["changes"]["train_confirmed"]
    assert changed == len(place.truth)
    version = open_dataset(proposals / "1" / "dataset")
    assert {row.message: row.label for row in version.train} == truth
    held = {row.message for row in open_holdout(version, purpose="test", subject="test")}
    validates = {row.message for row in version.validation}
    assert {text for text, _ in drawn} <= held | validates
    assert made["changes"]["new_in_holdout"] > made["changes"]["new_in_validation"] > 0

    desk.run("proposal", "load", proposals / "1" / "proposal.json")
    desk.run("proposal", "decide", made["id"][:8], "yes", "--note", "clear")
    desk.run("export", "--out", decided, "--project", dataset[:12])
    answers = decided / "proposals"
    carry = ("propose", "--store", place.store, "--out", proposals, "--json", *gates())
    code, result, error = call(*carry, "--decided", answers)
    assert code == 0, error
    assert [each["outcome"] for each in result["decided"]] == ["canary"]
    canary = read_canary(place.store)
    assert canary is not None
    assert canary.digest == made["adapter"]["digest"]
    assert "clear" in (canary.reason or "")
    moves = len(read_history(place.store))
    assert call(*carry, "--decided", answers)[1]["decided"] == []
    assert len(read_history(place.store)) == moves

    assert call("promote", "--store", place.store, "--reason", "quiet days")[0] == 0
    pointer = read_pointer(place.store)
    assert pointer is not None
    assert pointer.digest == canary.digest
    code, few, error = call(*propose, "--out", proposals / "2")
    assert code == 0, error
    assert few["outcome"] == "too_few_decisions"
    assert few["why"].startswith("0 decisions change the dataset")
