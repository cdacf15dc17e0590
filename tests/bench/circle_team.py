"""A team that goes round the circle by the commands, for ``tests.bench.circle_store``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.circle import review
from tests.bench.circle_canary import stopped_after
from tests.bench.circle_data import Messages
from tests.support.propose_world import gates
from tests.support.trainer_world import call
from trainer.artifacts.evaluation import PREDICTIONS, Prediction
from trainer.dataset.folder import Dataset, open_dataset
from trainer.propose.steps import find_dataset
from worker.contract import read_manifest
from worker.contract.circle import (
    Answer,
    Proposal,
    ProposalDecision,
    read_answers,
    read_proposal,
    read_tasks,
    save_answers,
    write_decision,
)
from worker.contract.store import read_pointer
from worker.contract.text import message_sha256

# So small a model does not reach the floors; what it has to show against the one before stays.
GATE = ("accuracy=0", "macro_f1=0", "label_recall=0", "ece=1")
DOUBTS = 0.2
SHARE = 0.05
LATER = "2026-02-01T09:00:00Z"


@dataclass(frozen=True, slots=True)
class Asked:
    """A message that the reviewer is asked about, and the label that it is shown with, if any."""

    message_id: str
    message_sha256: str
    purpose: str
    label: str | None = None
    task_id: str | None = None


@dataclass
class Team:
    """A folder with a store, datasets and proposals, and who decides there."""

    folder: Path
    messages: Messages
    base: Path
    draws: np.random.Generator
    decided: set[str] = field(default_factory=set)
    tasks: list[Path] = field(default_factory=list)
    decisions: list[Path] = field(default_factory=list)
    newest: Path | None = None  # the last proposal's dataset, which holds every decision

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

    def outside(self, adapter: Path, learnt: Dataset) -> list[Prediction]:
        """Return what an adapter says of the messages that nothing else has seen."""
        out = self.folder / f"outside-{read_manifest(adapter).digest[:12]}"
        if not out.exists():
            command("evaluate", adapter, "--dataset", self.folder / "outside", "--base", self.base,
                    "--trained-on", learnt.directory, "--out", out)  # fmt: skip
        return list(PREDICTIONS.read(out))

    def decide(self, number: int, step: int, *, by: str) -> None:
        """Have a round's messages decided, as ``by`` chooses them."""
        asked = self._ask(number, step) if by == "circle" else self._draw(step)
        answers = [self._answer(task, number) for task in asked]
        self.decided |= {answer.message_sha256 for answer in answers}
        self.decisions.append(self.folder / f"decisions-{number}.csv")
        save_answers(self.decisions[-1], answers)

    def _ask(self, number: int, step: int) -> list[Asked]:
        """Return the tasks of the commands: a fifth doubts, the rest what would teach most."""
        data = self.newest or self.serving()[1].directory
        asked: list[Asked] = []
        for purpose in ("check", "learn"):
            size = round(step * DOUBTS) if purpose == "check" else step - len(asked)
            out = self.folder / f"{purpose}-{number}.jsonl"
            words: list[object] = []
            if purpose == "learn":
                words = ["--size", size, "--messages", self.folder / "inbox.jsonl"]
                words += [word for path in self.tasks for word in ("--asked", path)]
            command("tasks", data, "--for", purpose, "--out", out, *words)
            fresh = [task for task in read_tasks(out) if task.message_sha256 not in self.decided]
            asked += [
                Asked(task.message_id, task.message_sha256, purpose, task.label, task.id)
                for task in fresh[:size]
            ]
            if purpose == "learn":
                self.tasks.append(out)
        return asked

    def _draw(self, step: int) -> list[Asked]:
        """Return random messages of the inbox."""
        lines = (self.folder / "inbox.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        rows = [row for row in rows if message_sha256(row["message"]) not in self.decided]
        return [
            Asked(rows[at]["id"], message_sha256(rows[at]["message"]), "learn")
            for at in self.draws.permutation(len(rows))[:step].tolist()
        ]

    def _answer(self, task: Asked, number: int) -> Answer:
        label = self.messages.names[review(self.messages, int(task.message_id[1:]), self.draws)]
        kept = label == task.label
        return Answer(
            task.message_id, task.message_sha256, "accept" if kept else "relabel",
            "" if kept else label, task_id=task.task_id,
            purpose=task.purpose, guideline="1",  # type: ignore[arg-type]
            decided_at=f"2026-01-{number:02d}T09:00:00Z",
        )  # fmt: skip

    def propose(self, out: Path, decisions: Sequence[Path]) -> Proposal:
        """Propose, of decisions, the next adapter."""
        command(
            *("propose", "--store", self.store, "--out", out, "--base", self.base),
            *("--recipe", self.folder / "recipe.toml", "--dataset", self.folder / "data"),
            *("--dataset", self.folder / "proposals", *gates("--gate-set", GATE)),
            *(word for path in decisions for word in ("--decisions", path)),
            *("--messages", self.folder / "inbox.jsonl", "--canary", SHARE),
            *("--least-decisions", 10),
        )
        return read_proposal(out / "proposal.json")

    def watch(self, out: Path, seed: int) -> int | None:
        """Return after how many of the canary's labels the judge stops a proposal on simulated
        traffic; None: never."""
        digest = read_proposal(out / "proposal.json").adapter.digest
        arms = self.outside(*self.serving()), self.of_proposal(out)
        main, canary = ([each for each in arm if int(each.id[1:]) in self.traffic] for arm in arms)
        return stopped_after(main, canary, digest, SHARE, seed)

    @cached_property
    def traffic(self) -> set[int]:
        """The places of messages that canaries are tried on."""
        return set(json.loads((self.folder / "traffic.json").read_text()))

    def accuracy(self, proposal: Path | None = None) -> float:
        """Return the accuracy on the untouched test: of the adapter in service, or of a
        proposal's."""
        told = self.outside(*self.serving()) if proposal is None else self.of_proposal(proposal)
        tested = [each for each in told if int(each.id[1:]) not in self.traffic]
        return float(np.mean([each.predicted == each.label for each in tested]))

    def of_proposal(self, out: Path) -> list[Prediction]:
        """Return what a proposal's adapter says of the messages that nothing else has seen."""
        return self.outside(out / "run" / "adapter", open_dataset(out / "dataset"))

    def go_round(self, number: int, step: int, *, by: str) -> dict[str, Any]:
        """Go once round, by the commands, and return what came of it."""
        self.decide(number, step, by=by)
        out = self.folder / "proposals" / str(number)
        proposal = self.propose(out, self.decisions)
        self.newest = out / "dataset"
        answer = self.folder / f"answer-{number}.json"
        write_decision(answer, ProposalDecision(
            "proposal-decision/1", proposal.id, proposal.adapter.digest,
            proposal.verdict == "publish", "reviewer", f"2026-01-{number:02d}T10:00:00Z",
        ))  # fmt: skip
        told = command("propose", "--store", self.store, "--out", out, "--decided", answer,
                       *gates("--gate-set", GATE))  # fmt: skip
        stopped = None
        if told["outcome"] == "canary":
            stopped = self.watch(out, number)
            if stopped is None:
                command("promote", "--store", self.store, "--reason", "its canary was quiet")
            else:
                command("rollback", "--store", self.store, "--reason", "the judge stopped it")
        return {
            "decisions": len(self.decided), "verdict": proposal.verdict,
            "outcome": told["outcome"], "canary_stopped_after": stopped,
            "changes": dict(proposal.changes), "figures": figures(proposal),
            "proposed_accuracy": self.accuracy(out), "accuracy": self.accuracy(),
        }  # fmt: skip

    def plant(self) -> dict[str, dict[str, Any]]:
        """Make two worse proposals and two that are as good, and return what gate, comparison and
        canary's judge say: every decision that was made with a tenth of them flipped; a tenth of
        all training labels flipped; a fiftieth of the training messages left out, or confirmed."""
        made = [answer for path in self.decisions for answer in read_answers(path)]
        _, learnt = self.serving()
        labels = {message_sha256(row.message): row.label for row in learnt.train}
        every = [
            Answer(row.id, message_sha256(row.message), "drop", purpose="check", guideline="2",
                   decided_at=LATER)
            for row in learnt.train
        ]  # fmt: skip
        fiftieth = self._some(every, 50)
        planted = {
            "decisions_flipped": [self._flip(each, labels) for each in self._some(made, 10)],
            "training_flipped": [self._flip(each, labels) for each in self._some(every, 10)],
            "fiftieth_dropped": fiftieth,
            "fiftieth_confirmed": [replace(each, decision="accept") for each in fiftieth],
        }
        told = {}
        for name, answers in planted.items():
            path, out = self.folder / f"{name}.csv", self.folder / "planted" / name
            save_answers(path, answers)
            before = self.decisions if name == "decisions_flipped" else []
            proposal = self.propose(out, [*before, path])
            told[name] = {
                "changed": len(answers), "verdict": proposal.verdict,
                "gate": all(row.passed for row in proposal.gate),
                "canary_stopped_after": self.watch(out, 99),
                "figures": figures(proposal), "proposed_accuracy": self.accuracy(out),
            }  # fmt: skip
        return told

    def _some(self, answers: Sequence[Answer], one_in: int) -> list[Answer]:
        places = self.draws.permutation(len(answers))[: len(answers) // one_in]
        return [answers[at] for at in places.tolist()]

    def _flip(self, answer: Answer, labels: dict[str, str]) -> Answer:
        names = self.messages.names
        given = answer.new_label or labels.get(answer.message_sha256) or names[0]
        other = names[(names.index(given) + int(self.draws.integers(1, len(names)))) % len(names)]
        return replace(answer, decision="relabel", new_label=other, task_id=None,
                       decided_at=LATER)  # fmt: skip


def command(*words: object) -> dict[str, Any]:
    """Run ``clerk-trainer``; what it prints as JSON. Raises AssertionError with its words."""
    code, result, error = call(*words, "--json")
    assert code == 0, (words[0], error)
    return result


def figures(proposal: Proposal) -> list[list[Any]]:
    """Return each figure's name, and what it is of the proposed adapter and of the current one."""
    return [[each.name, each.proposed, each.current] for each in proposal.figures]
