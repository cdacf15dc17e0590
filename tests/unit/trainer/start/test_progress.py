"""How long it will take, judged on machines whose pace is known."""

from __future__ import annotations

import io
import random
import re
import time

import pytest
from rich.console import Console

from trainer.progress import progress
from trainer.start.progress import Estimate, step_progress

STEPS = ("prepare", "check", "train", "evaluate", "duel", "report")


@pytest.mark.parametrize("pace", [0.3, 1.0, 3.0, 10.0])
def test_from_the_middle_on_the_estimate_is_within_a_factor_of_two(pace: float) -> None:
    """On a machine of any pace, with steps that each take half to one and a half times of that."""
    rng = random.Random(1)
    off = []
    for _ in range(200):
        estimate, plain = Estimate(300), Estimate(300)
        true = [pace * plain.seconds(step) * rng.uniform(0.5, 1.5) for step in STEPS]
        for at, step in enumerate(STEPS[:2]):
            estimate.took(step, true[at])
        left = estimate.left("train", true[2] / 2, true[2] / 2, STEPS[3:])
        off.append(left / (true[2] / 2 + sum(true[3:])))
    within = sum(0.5 <= each <= 2.0 for each in off) / len(off)
    assert within >= 0.95
    # A step that takes longer than expected raises the estimate.
    late = estimate.left("check", 20 * estimate.seconds("check"), None, STEPS[2:])
    assert late > 5 * estimate.left("check", 1, None, STEPS[2:])


@pytest.mark.parametrize("term", ["dumb", "none"])
def test_a_log_and_a_dumb_terminal_get_whole_lines(
    monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    monkeypatch.setattr("trainer.start.progress._LINE_EVERY_S", 0.01)
    monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    console = Console(file=out, force_terminal=term == "dumb")
    with (
        step_progress(console, Estimate(300), "check", STEPS[2:]),
        progress("comparing", 2_000) as advance,
    ):
        advance(1_000)
        out.truncate(0)
        while "left" not in out.getvalue():
            time.sleep(0.01)
    lines = out.getvalue().strip("\0").splitlines()
    line = r"    \d+:\d\d, comparing: 1,000 of 2,000, about \d+ (s|min) left$"
    assert all(re.match(line, each) for each in lines)
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()
