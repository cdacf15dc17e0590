"""People's decisions at the desk become a dataset, by the two commands of docs/desk.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from desk.core.items import Queue
from desk.service import reviewing
from desk.store.database import Database
from desk.store.migrate import migrate
from tests.support.desk_world import DeskWorld
from worker.contract.taxonomy import Taxonomy
from worker.demo.models import read_samples

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]

TAXONOMY = ROOT / "config" / "taxonomy.toml"


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def decide_all(url: str) -> dict[str, str | None]:
    """One reviewer decides the shop's sample messages, and that no label fits the odd ones;
    return the decisions. The model's label was "refund" for every third."""
    database = Database(url)
    migrate(database)
    world = DeskWorld(database, taxonomy=Taxonomy.from_toml(TAXONOMY))
    samples = [*read_samples("holdout.jsonl"), *read_samples("out_of_scope.jsonl")[:20]]
    answers = {sample.message: sample.label for sample in samples}
    machine = [
        "refund" if number % 3 == 0 else label or "payment"
        for number, label in enumerate(answers.values())
    ]
    world.add_all(
        [
            (text, {"label": label, "scores": {label: 1.0}})
            for text, label in zip(answers, machine, strict=True)
        ]
    )
    ann = world.person("ann")
    while (task := reviewing.next_item(world.desk, ann, Queue())) is not None:
        assert task.text is not None
        label = answers[task.text]
        reviewing.decide(world.desk, ann, task.item_id, label, request_id=world.request())
    database.close()
    return answers


def test_two_commands_make_a_dataset_of_the_decisions(tmp_path: Path) -> None:
    """The dataset has the reviewers' labels and none of the model's; messages that fit no label
    are left out, and each message is in one split."""
    url = f"sqlite:///{tmp_path}/desk.db"
    answers = decide_all(url)
    decided, data = tmp_path / "decided", tmp_path / "data"
    settings = {"database.url": url, "project.taxonomy": TAXONOMY}
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    output = run("desk", "export", "--out", str(decided), *flags)
    assert output.startswith(f"{len(answers)} decisions")
    given = {
        "--input": decided / "messages.jsonl",
        "--decisions": decided / "decisions.csv",
        "--taxonomy": TAXONOMY,
        "--out": data,
    }
    run("trainer", "prepare", *[str(word) for pair in given.items() for word in pair])
    rows = [
        json.loads(line)
        for split in ("train", "validation", "holdout")
        for line in (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    # The message of an id, from the export.
    texts = map(json.loads, (decided / "messages.jsonl").read_text(encoding="utf-8").splitlines())
    fitting = {row["id"]: label for row in texts if (label := answers[row["message"]]) is not None}
    # A few are near-duplicates of others, and left out as always.
    assert 0.9 * len(fitting) < len(rows) <= len(fitting)
    assert {row["id"]: row["response"] for row in rows}.items() <= fitting.items()
    assert len({row["id"] for row in rows}) == len(rows)
