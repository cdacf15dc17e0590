"""The circle through the programs themselves, on the shop's messages: every round by the commands
that a team gives, into one store, to its canary and its promotion.

    python -m tests.bench.circle_store --out DIR [--rounds 3] [--step 200]

As tests/bench/circle.py it begins with so many examples a label, of which one in twenty is wrong,
and a reviewer who is wrong once in twenty times. A round: ``tasks`` (a fifth for check, the rest
for learn), decisions, ``propose``; where it says yes, a person's yes, ``propose --decided``, and
``promote``. The model is ``embedding-linear`` on all-MiniLM-L6-v2. Accuracy of what the store's
pointer names is by ``evaluate`` on a test of a fifth that nothing else has seen. Writes
circle-store.json: figures and the store's history, no text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.circle import DOUBTS, begin, review, split
from tests.bench.circle_data import Ints, Messages, load
from tests.support.trainer_world import call
from trainer.artifacts.evaluation import PREDICTIONS
from trainer.dataset.folder import Dataset, Example, write_dataset
from trainer.model.embeddings import find_embedding_model
from trainer.propose.steps import find_dataset
from trainer.store.files import read_history
from worker.contract import Taxonomy, read_manifest
from worker.contract.circle import (
    Answer,
    ProposalDecision,
    Task,
    read_proposal,
    read_tasks,
    save_answers,
    write_decision,
)
from worker.contract.store import read_pointer

ROOT = Path(__file__).parents[2]
RECIPE = """kind = "embedding-linear"
name = "circle"
base_name = "all-MiniLM-L6-v2"
base_revision = "1"
pooling = "mean"
onnx = ["fp32"]
"""
# So small a model does not reach the floors; what it has to show against the one before stays.
GATE = ("accuracy=0", "macro_f1=0", "label_recall=0", "ece=1")
VALIDATION = 20


@dataclass
class Team:
    """A folder with a store, datasets and proposals, and who decides there."""

    folder: Path
    messages: Messages
    base: Path
    draws: np.random.Generator
    decided: set[str] = field(default_factory=set)
    files: list[Path] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """The adapters' store."""
        return self.folder / "store"

    def serving(self) -> tuple[Path, Dataset]:
        """Return the adapter in service, and the dataset that it learnt."""
        pointer = read_pointer(self.store)
        assert pointer is not None
        adapter = self.store / pointer.digest
        learnt = str(read_manifest(adapter).data["digest"])
        return adapter, find_dataset((self.folder / "data", self.folder / "proposals"), learnt)

    def accuracy(self, number: int) -> float:
        """Return the accuracy of the adapter in service on the untouched test."""
        adapter, learnt = self.serving()
        out = self.folder / f"test-{number}"
        command("evaluate", adapter, "--dataset", self.folder / "test", "--base", self.base,
                "--trained-on", learnt.directory, "--out", out)  # fmt: skip
        return float(np.mean([each.predicted == each.label for each in PREDICTIONS.read(out)]))

    def decide(self, number: int, step: int) -> Path:
        """Have the tasks of a round decided, and return the file of decisions."""
        _, learnt = self.serving()
        answers: list[Answer] = []
        for purpose, size in (("check", round(step * DOUBTS)), ("learn", step)):
            out = self.folder / f"{purpose}-{number}.jsonl"
            words = ["--messages", self.folder / "inbox.jsonl"]
            words += [word for path in self.files for word in ("--asked", path)]
            command("tasks", learnt.directory, "--for", purpose, "--out", out,
                    "--size", size if purpose == "learn" else 10 * size,
                    *(words if purpose == "learn" else ()))  # fmt: skip
            fresh = [task for task in read_tasks(out) if task.message_sha256 not in self.decided]
            left = step - len(answers) if purpose == "learn" else size
            answers += [self.answer(task, number) for task in fresh[:left]]
            self.files.append(out)
        self.decided |= {answer.message_sha256 for answer in answers}
        path = self.folder / f"decisions-{number}.csv"
        save_answers(path, answers)
        return path

    def answer(self, task: Task, number: int) -> Answer:
        """Return what the reviewer says of a task."""
        label = self.messages.names[review(self.messages, int(task.message_id[1:]), self.draws)]
        kept = label == task.label
        return Answer(
            task.message_id, task.message_sha256, "accept" if kept else "relabel",
            "" if kept else label, task_id=task.id, purpose=task.purpose, guideline="1",
            decided_at=f"2026-01-{number:02d}T09:00:00Z",
        )  # fmt: skip

    def propose(self, number: int, decisions: Sequence[Path]) -> dict[str, Any]:
        """Propose, and take the proposal's own word for an answer; return what came of it."""
        out = self.folder / "proposals" / str(number)
        tasks = [path for path in self.files if path.name.startswith("learn")]
        made = command(
            *("propose", "--store", self.store, "--out", out, "--base", self.base),
            *("--recipe", self.folder / "recipe.toml", "--dataset", self.folder / "data"),
            *("--dataset", self.folder / "proposals", *gates("--gate-set")),
            *(word for path in decisions for word in ("--decisions", path)),
            *(word for path in tasks for word in ("--messages", path)),
        )  # fmt: skip
        proposal = read_proposal(out / "proposal.json")
        answer = self.folder / f"answer-{number}.json"
        write_decision(answer, ProposalDecision(
            "proposal-decision/1", proposal.id, proposal.adapter.digest,
            proposal.verdict == "publish", "reviewer", f"2026-01-{number:02d}T10:00:00Z",
        ))  # fmt: skip
        told = command("propose", "--store", self.store, "--out", out, "--decided", answer,
                       *gates("--gate-set"))  # fmt: skip
        if told["outcome"] == "canary":
            command("promote", "--store", self.store, "--reason", "its days as a canary were quiet")
        return {"verdict": made["verdict"], "outcome": told["outcome"], "changes": made["changes"],
                "figures": made["figures"]}  # fmt: skip


def command(*words: object) -> dict[str, Any]:
    """Run ``clerk-trainer``; what it prints as JSON. Raises AssertionError with its words."""
    code, result, error = call(*words, "--json")
    assert code == 0, (words[0], error)
    return result


def gates(option: str) -> list[str]:
    """Return the gate's rules as a command takes them."""
    return [word for rule in GATE for word in (option, rule)]


def open_team(out: Path, start: int, seed: int) -> Team:
    """Write the first dataset, the test and the inbox, and publish the first adapter."""
    messages = load(None, out)
    base = find_embedding_model()
    assert base is not None, "the extra 'embeddings' is not installed"
    team = Team(out / "team", messages, base, np.random.default_rng([seed, 7]))
    team.folder.mkdir()
    test, holdout, pool = split(messages, seed)
    _, first = np.unique(messages.clusters[pool], return_index=True)
    pool = np.sort(pool[first])  # one of each near-duplicates
    draws = np.random.default_rng(seed)
    known = begin(messages, pool, start, draws)
    rest = np.setdiff1d(pool, list(known))
    checked = begin(messages, rest, VALIDATION, draws)
    taxonomy = Taxonomy.from_toml(ROOT / "config" / "taxonomy.toml")
    parts = {"train": known, "validation": checked, "holdout": own_labels(messages, holdout)}
    splits = {name: examples(messages, labels) for name, labels in parts.items()}
    write_dataset(team.folder / "data", name="shop", taxonomy=taxonomy, splits=splits)
    splits["holdout"] = examples(messages, own_labels(messages, test))
    write_dataset(team.folder / "test", name="shop-test", taxonomy=taxonomy, splits=splits)
    lines = [
        json.dumps({"id": f"m{at}", "message": messages.texts[at]})
        for at in np.setdiff1d(rest, list(checked)).tolist()
    ]
    (team.folder / "inbox.jsonl").write_text("\n".join(lines) + "\n")
    (team.folder / "recipe.toml").write_text(RECIPE)
    run, data = team.folder / "run", team.folder / "data"
    command("train", "--recipe", team.folder / "recipe.toml", "--dataset", data, "--base", base,
            "--out", run)  # fmt: skip
    command("evaluate", run / "adapter", "--dataset", data, "--base", base)
    command("publish", run, "--store", team.store, *gates("--set"))
    return team


def own_labels(messages: Messages, places: Ints) -> dict[int, int]:
    """Return place -> the label that the data has."""
    return {int(at): int(messages.labels[at]) for at in places}


def examples(messages: Messages, labels: dict[int, int]) -> list[Example]:
    """Return the rows of a dataset's part."""
    return [
        Example(f"m{at}", messages.texts[at], messages.names[label]) for at, label in labels.items()
    ]


def main() -> None:
    """Go round, and write what each round brought."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    for name, usual in (("start", 100), ("rounds", 3), ("step", 200), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    team = open_team(given.out, given.start, given.seed)
    rounds: list[dict[str, Any]] = [{"accuracy": team.accuracy(0)}]
    print(rounds[0], flush=True)
    decisions: list[Path] = []
    for number in range(1, given.rounds + 1):
        decisions.append(team.decide(number, given.step))
        told = team.propose(number, decisions)
        rounds.append({"decisions": len(team.decided), **told, "accuracy": team.accuracy(number)})
        print({key: rounds[-1][key] for key in ("decisions", "outcome", "accuracy")}, flush=True)
    moves = [
        {"event": each.event, "digest": each.digest[:12], "previous": (each.previous or "")[:12],
         "share": each.share}
        for each in read_history(team.store)
    ]  # fmt: skip
    result = {"step": given.step, "rounds": rounds, "history": moves}
    (given.out / "circle-store.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
