"""Successors: against the current adapter and against the first of their series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from tests.unit.trainer.store.conftest import Clerk, MakeRun
from worker.contract.store import read_pointer

MESSAGES = 1500
WRONG = set(range(0, MESSAGES, 15))
SEEN = set(sorted(WRONG)[::2]) | set(range(5, MESSAGES, 60))
"""The messages that an adapter sends to review: half of its mistakes, and some others."""


def promise(precision: float, wrong: set[int], review: set[int]) -> dict[str, Any]:
    kept = set(range(MESSAGES)) - review
    filed, right = len(kept), len(kept - wrong)
    shown = {"messages": filed, "right": right, "effect": 1.0}
    p = float(binom.sf(right - 1, filed, precision)) if filed else 1.0
    refuted = float(binom.cdf(right, filed, precision)) if filed else 1.0
    return {
        "precision": precision,
        "by": "lower",
        "validation": {**shown, "p": p},
        "holdout": {**shown, "p": refuted},
    }


@pytest.fixture
def make(make_run: MakeRun) -> MakeRun:
    def run(
        name: str,
        wrong: set[int],
        review: set[int],
        precision: float = 0.95,
        messages: int = MESSAGES,
        **changes: Any,
    ) -> Path:
        kept = promise(precision, wrong, review)
        return make_run(name, wrong, messages, review=review, promise=kept, **changes)

    return run


def test_one_that_sends_everything_to_review_replaces_none_that_files(
    clerk: Clerk, make: MakeRun
) -> None:
    assert clerk("publish", make("current", WRONG, SEEN))[0] == 0
    lazy = make("lazy", WRONG, set(range(MESSAGES)))
    for canary in ((), ("--canary", 0.1)):
        code, _, err = clerk("publish", lazy, *canary)
        assert (code, "right without review, against the current adapter" in err) == (3, True), err
    assert clerk("publish", make("as-good", WRONG, SEEN))[0] == 0
    few = make("few", {0, 15}, set(), messages=30)
    assert clerk("publish", few, "--force", "--reason", "a trial")[0] == 0
    # Judged again, it is not compared with itself.
    out = clerk("publish", few, "--force", "--reason", "again", "--dry-run")[1]
    assert "this is it" in out


def test_a_first_adapter_that_reviews_everything_says_so(clerk: Clerk, make: MakeRun) -> None:
    """Nobody acts on its confidence, however wrong that is."""
    everything = set(range(MESSAGES))
    ece = {"calibration": {"ece": 0.5}}
    code, out, _ = clerk("publish", make("first", WRONG, everything, **ece))
    assert (code, "of 1,500 held-out messages it files 0" in out) == (0, True), out
    assert "not judged: every message goes to review" in out


def test_another_promise_has_to_be_accepted(clerk: Clerk, make: MakeRun, store: Path) -> None:
    """The same answers, and 50 wrong labels more that nobody sees."""
    assert clerk("publish", make("current", WRONG, SEEN))[0] == 0
    first = read_pointer(store)
    lax = make("lax", WRONG, set(), 0.9)
    code, out, _ = clerk("publish", lax, "--json")
    assert code == 3
    [row] = [each for each in json.loads(out)["gate"]["criteria"] if not each["passed"]]
    assert row["found"] == (
        "new 0.9: files 1500 of 1500, 100 of them wrong; current 0.95: files 1425 of 1500, 50 of "
        "them wrong; accept it with --accept-promise 0.9"
    )
    assert clerk("publish", lax, "--accept-promise", 0.8)[0] == 3
    assert clerk("publish", lax, "--accept-promise", 0.9)[0] == 0
    assert first is not None
    assert anchor_of(store) is None  # what a person decided begins a new series


def anchor_of(store: Path) -> str | None:
    pointer = read_pointer(store)
    assert pointer is not None
    found: str | None = json.loads((store / f"{pointer.digest}.json").read_text())["anchor"]
    return found


def test_small_steps_do_not_add_up(clerk: Clerk, make: MakeRun, store: Path) -> None:
    """Each one is ten answers worse than the one before, of 1,500."""
    answers = [WRONG | set(range(1, 15 * step, 15)) for step in range(0, 40, 10)]
    assert clerk("publish", make("step0", answers[0], SEEN))[0] == 0
    first = read_pointer(store)
    assert first is not None
    codes = []
    for step, wrong in enumerate(answers[1:], start=1):
        # McNemar's test alone would refuse a step without an answer that is better.
        lucky = {min(WRONG - SEEN) + 15 * each for each in range(0, 12 * step, 2)} & wrong
        run = make(f"step{step}", wrong - lucky, SEEN)
        codes.append(clerk("publish", run)[0])
        if codes[-1] == 0:
            assert anchor_of(store) == first.digest
    assert codes[0] == 0
    assert codes[-1] == 3


def test_one_that_is_shown_better_begins_a_new_series(
    clerk: Clerk, make: MakeRun, store: Path
) -> None:
    for name, wrong, forced in (
        ("first", WRONG, False),
        ("equal", WRONG ^ {0, 1}, False),
        ("better", set(sorted(WRONG)[20:]), False),
        ("after", set(sorted(WRONG)[20:]) ^ {2}, False),
        ("forced", WRONG | set(range(0, MESSAGES, 10)), True),
    ):
        run = make(name, wrong, SEEN)
        options = ("--force", "--reason", "new label set") if forced else ()
        assert clerk("publish", run, *options)[0] == 0, name
        pointer = read_pointer(store)
        assert pointer is not None
        if name in {"first", "better"}:
            anchor = pointer.digest
        assert anchor_of(store) == (anchor if name in {"equal", "after"} else None), name


def test_a_new_hold_out_measures_the_first_of_the_series_too(
    clerk: Clerk, make: MakeRun, store: Path
) -> None:
    digests = []
    for name, wrong in (("first", WRONG), ("second", WRONG ^ {1})):
        assert clerk("publish", make(name, wrong, SEEN))[0] == 0
        pointer = read_pointer(store)
        assert pointer is not None
        digests.append(pointer.digest)
    grown = {"dataset": {"holdout_sha256": "b2" * 32}}
    new = make("new", WRONG, SEEN, **grown)
    again = [
        make(f"again{digest[:6]}", WRONG, SEEN, adapter={"digest": digest}, **grown) / "evaluation"
        for digest in digests
    ]
    code, _, err = clerk("publish", new, "--current-evaluation", again[1])
    assert (code, "against the first of its series" in err) == (3, True), err
    assert f"clerk-trainer evaluate {store / digests[0]}" in err
    given = ("--current-evaluation", again[0], "--current-evaluation", again[1])
    assert clerk("publish", new, *given)[0] == 0
    assert anchor_of(store) == digests[0]


def test_each_further_try_on_a_hold_out_has_to_show_more(
    clerk: Clerk, make: MakeRun, store: Path
) -> None:
    """Those tried before the current adapter was published do not count, and repeated evaluations
    of one adapter count once."""
    before, after = [f"{number:064x}" for number in range(30)], [f"{number:064x}" for number in
                                                                 range(40, 48)]  # fmt: skip
    assert clerk("publish", make("current", WRONG, SEEN, dataset={"tried": before}))[0] == 0
    wrong = (WRONG - set(range(0, 240, 15))) | set(range(1, 360, 15))  # 16 better, 24 worse
    review = SEEN | set(range(1, 360, 30))

    def publish(name: str, tried: list[str]) -> tuple[int, str]:
        code, out, _ = clerk("publish", make(name, wrong, review, dataset={"tried": tried}))
        return code, " ".join(out.split())

    code, said = publish("ninth", [*before, *after])
    assert (code, "(p < 0.00056)" in said) == (3, True), said
    assert "number 9 of those tried on this hold-out" in said
    assert "new held-out messages begin a new count" in said
    code, said = publish("lone", before)
    assert (code, "(p < 0.025)" in said) == (0, True), said


def test_a_second_model_from_few_messages_can_replace_the_first(
    clerk: Clerk, make_run: MakeRun
) -> None:
    """100 messages cannot show two points of accuracy, nor six of them a recall of 60 %. It files
    85 instead of 37."""
    labels = {"billing": 6, "delivery": 46, "other": 48}
    truth = [at for at, count in enumerate(labels.values()) for _ in range(count)]

    def run(name: str, wrong: set[int], filed: int) -> Path:
        review = set(range(filed, 100))
        shown = {"messages": 400, "right": 396, "effect": 1.0, "p": 0.001}
        held = {**shown, "messages": filed, "right": filed - len(wrong - review), "p": 0.9}
        kept = {"precision": 0.95, "by": "lower", "validation": shown, "holdout": held}
        return make_run(name, wrong, 100, truth=truth, review=review, promise=kept)

    first = run("first", {0, 1, *range(20, 30), *range(90, 94)}, 37)
    assert clerk("publish", first, "--set", "accuracy=0.5")[0] == 0
    second = run("second", {0, *range(90, 94)}, 85)
    code, out, err = clerk("publish", second, "--set", "steering=false")
    assert code == 0, (out, err)
    assert "given to 5 of them by the new adapter, 4 by the current" in " ".join(out.split())
    worse = run("worse", {0, 1, *range(90, 94)}, 85)
    code, out, _ = clerk("publish", worse, "--set", "steering=false", "--json")
    found = {each["name"]: each["found"] for each in json.loads(out)["gate"]["criteria"]}
    assert code == 3
    row = found["recall of billing after review, lower end of its interval"]
    assert "given to 4 of them by the new adapter, 5 by the current" in row
