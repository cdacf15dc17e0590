"""Results as tables on a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from rich.console import Console

from tests.unit.trainer.report.conftest import Made
from trainer.artifacts.duel import DUEL
from trainer.artifacts.evaluation import EVALUATION
from trainer.terminal import show_duel, show_evaluation

ODD = ("closed [urgent]", "sent back [/b]", "fee", "refund")


def shown(show: Callable[[Console, Any], None], record: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console, record)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_duel_is_whole_in_eighty_columns(made: Made) -> None:
    """Long names wrap; a number that is cut off would be another number."""
    file = made.run / "duel" / "duel.json"
    text = file.read_text(encoding="utf-8")
    record = json.loads(text.replace('"minilm"', '"shop-support-encoder-of-may"'))
    for figures in record["candidates"]:
        figures |= {"messages_per_s": 1413.0, "train_seconds": 2506.0, "outside_labels": 660}
    for pair in record["pairs"]:
        pair |= {"a_only": 1193, "b_only": 1149, "mcnemar_p": 0.00013, "p_holm": 0.00026}
        pair |= {"difference": -0.12, "interval_95": [-0.1391, -0.1012]}
        pair |= {"worst_difference": 0.1096, "non_inferiority_p": 0.000123}
    took = {"no_label": 660, "seconds_p50": 1.234, "seconds_p99": 59.99}
    took |= {"prompt_tokens": 1234.5, "answer_tokens": 12.3}
    record["candidates"][0] |= {"elsewhere": took, "cost_per_message": 0.00123456}
    name = record["candidates"][0]["name"]
    record["replacements"] = [
        {"candidate": name, "conclusion": "undecided", "not_worse_p": 0.1234, "reason": "Why."}
        | {"worst_difference": 0.1234}
    ]
    lines = shown(show_duel, DUEL.validate(record, file), width=80).splitlines()
    tables = lines[: next(at for at, line in enumerate(lines) if "validation accuracy" in line)]
    assert not [line for line in tables if "\N{HORIZONTAL ELLIPSIS}" in line]
    rows = ["".join(line.split()) for line in tables]
    assert sum("−12.0−13.9to−10.11,193:1,149<0.001−11.0<0.001" in row for row in rows) == len(
        record["pairs"]
    )
    assert sum("41min46s1,413660" in row for row in rows) == len(record["candidates"])


def test_labels_with_brackets_are_shown_as_they_are(make_run: Callable[..., Made]) -> None:
    run = make_run(labels=ODD).run
    text = shown(show_evaluation, EVALUATION.read(run / "evaluation"))
    assert all(label in text for label in ODD)
