"""The printed verification."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from worker.offline.verify import Verification, show, to_json
from worker.offline.verify_check import Checker, Offender, ResultsBy, Span, Verdict
from worker.records.types import TopicPartition


@pytest.fixture
def verdict() -> Verdict:
    """Ten input records at offsets 0 to 9, and nothing else."""
    source = TopicPartition("in", 0)
    checker = Checker(
        {source: Span(0, 10, 10)},
        adapters=None,
        compacted=False,
        repeats_allowed=False,
        max_offenders=2,
    )
    for offset in range(10):
        checker.add_input(source, offset)
    return checker.verdict()


def shown(verdict: Verdict, pending: int = 0) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(Verification("in", "clerks", {0: (0, 10), 1: (5, 5)}, pending, None, verdict), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_text_of_foreign_records_is_escaped(verdict: Verdict) -> None:
    odd = Offender("unreadable", None, "out-0-7", "the key 'a[/b]' is [unknown]")
    text = shown(replace(verdict, offenders=(odd,)))
    assert "the key 'a[/b]' is [unknown]" in text


def test_an_adapter_that_was_served_in_two_precisions_is_two_lines(verdict: Verdict) -> None:
    """The same digest gives some messages other labels in another precision."""
    by = (
        ResultsBy("ab" * 32, "int8", 7),
        ResultsBy("ab" * 32, "fp32", 1200),
        ResultsBy("ab" * 32, None, 2),
    )
    found = Verification("in", "clerks", {0: (0, 10)}, 0, None, replace(verdict, adapters=by))
    assert json.loads(json.dumps(to_json(found)))["adapters"] == [
        {"digest": "ab" * 32, "precision": "int8", "results": 7},
        {"digest": "ab" * 32, "precision": "fp32", "results": 1200},
        {"digest": "ab" * 32, "precision": None, "results": 2},
    ]
    assert (
        "adapters: abababababab in int8 7, abababababab in fp32 1,200, "
        "abababababab (dead letters) 2"
    ) in shown(found.verdict)
