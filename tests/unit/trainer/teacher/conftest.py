"""Messages of the sample shop without labels, and an endpoint that labels them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.known_messages import as_sent, read_known
from tests.support.simulated_teacher import SimulatedTeacher, answer_like_a_model
from worker.contract import Taxonomy

ROOT = Path(__file__).parents[4]
TAXONOMY = ROOT / "config" / "taxonomy.toml"
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
        known = dict(islice(as_sent(read_known()).items(), count))
        truth = {f"m{number}": label for number, (_, label) in enumerate(known.values())}
        with path.open("w", encoding="utf-8") as file:
            for number, (message, _) in enumerate(known.values()):
                file.write(json.dumps({"id": f"m{number}", "message": message}) + "\n")
        return Shop(path, truth, {text: label for text, (_, label) in known.items()}, names)

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
