"""Messages of the sample shop without labels, and an endpoint that labels them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulated_teacher import SimulatedTeacher, answer_like_a_model
from trainer.teacher.prompt import make_question
from worker.contract import Taxonomy

ROOT = Path(__file__).parents[4]
TAXONOMY = ROOT / "config" / "taxonomy.toml"
SAMPLES = ROOT / "worker" / "demo" / "data" / "train.jsonl"
INPUT_PRICE, OUTPUT_PRICE = "0.15", "0.60"


@dataclass(frozen=True)
class Shop:
    """``messages`` is a file without labels; ``truth`` maps ids to labels, ``sent`` what leaves."""

    messages: Path
    truth: dict[str, str]
    sent: dict[str, str]
    names: tuple[str, ...]

    def command(self, teacher: SimulatedTeacher, out: Path, *more: object) -> list[str]:
        """A command line that asks ``teacher`` about all messages."""
        words: list[object] = ["label", self.messages, "--taxonomy", TAXONOMY]
        words += ["--teacher", teacher.url, "--model", "simulated", "--out", out]
        words += ["--price-input", INPUT_PRICE, "--price-output", OUTPUT_PRICE, "--yes", *more]
        return [str(word) for word in words]


MakeShop = Callable[[int], Shop]


@pytest.fixture
def make_shop(tmp_path: Path) -> MakeShop:
    """A function of how many messages; texts that are equal when masked are taken once."""

    def make(count: int) -> Shop:
        names = Taxonomy.from_toml(TAXONOMY).names
        path = tmp_path / "messages.jsonl"
        truth: dict[str, str] = {}
        sent: dict[str, str] = {}
        with path.open("w", encoding="utf-8") as file, SAMPLES.open(encoding="utf-8") as samples:
            for number, line in enumerate(samples):
                row = json.loads(line)
                question = make_question(row["message"], redacts=True)
                if question is None or question.text in sent:
                    continue
                truth[f"m{number}"] = sent[question.text] = row["label"]
                file.write(json.dumps({"id": f"m{number}", "message": row["message"]}) + "\n")
                if len(truth) == count:
                    break
        return Shop(path, truth, sent, names)

    return make


Serve = Callable[..., SimulatedTeacher]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A function that starts a simulated teacher for a shop; keywords are its fields."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-a-test")
    with ExitStack() as stack:

        def start(shop: Shop, **fields: Any) -> SimulatedTeacher:
            fields.setdefault("answer", answer_like_a_model(shop.sent, shop.names))
            teacher = SimulatedTeacher(input_price=150_000, output_price=600_000, **fields)
            return stack.enter_context(teacher.running())

        yield start


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
