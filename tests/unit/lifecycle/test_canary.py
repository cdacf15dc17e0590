"""A canary labels a share of the keys, is compared, and is stopped when it does worse."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.follower import WIDE, AdapterStore, FakeLoader, Follower
from tests.support.rig import Rig, make_judge_policy
from tests.support.toy_adapter import ONE, THREE, TWO, answer_with, stamps, toy_manifest
from worker.contract import Manifest
from worker.contract.errors import MessageRejected
from worker.contract.store import CanaryPointer, remove_canary, write_canary
from worker.core.events import Published
from worker.lifecycle.canary_judge import BLOCK, ArmComparison, CanaryJudge, Evidence

pytestmark = pytest.mark.slow


def label(follower: Follower, keys: Sequence[bytes | None]) -> dict[bytes | None, str]:
    """Label a message of each key; return the digest of the adapter that labelled each."""
    log = follower.rig.stream.log[follower.rig.stream.sources[0]]
    first = len(log)
    for key in keys:
        follower.rig.stream.add(b"hello", key=key)
    while follower.rig.committed() < len(log):
        follower.rig.iterate()
    found = stamps(follower.rig.stream.outputs)
    assert len(found) == len(log)
    return {record.key: found[record.id][1] for record in log[first:]}


KEYS = [b"customer-%d" % n for n in range(400)]


def test_a_growing_share_only_adds_keys(
    follower: Follower,
) -> None:
    before: set[bytes | None] = set()
    for share in (0.1, 0.1, 0.3, 0.6, 1.0):
        follower.store.canary(TWO, share)
        follower.follow()
        found = label(follower, KEYS)
        served = {key for key, digest in found.items() if digest == TWO.digest}
        assert before <= served
        assert abs(len(served) / len(KEYS) - share) < 0.07
        before = served
    assert follower.loader.loaded.count(TWO.digest) == 1, "a share is changed without loading"


def test_a_promoted_canary_serves_all_without_being_loaded_again(follower: Follower) -> None:
    follower.store.canary(TWO, 0.2)
    follower.follow()
    canary = follower.canary
    follower.store.publish(TWO, "promote")
    follower.follow()
    assert follower.main is canary
    assert follower.canary is None
    remove_canary(follower.store.folder)
    follower.follow()
    assert set(label(follower, KEYS).values()) == {TWO.digest}
    follower.poll_once()
    assert follower.loader.loaded.count(TWO.digest) == 1
    assert len(follower.loader.open) == 1


def test_a_canary_that_is_stopped_during_its_promotion_serves_all_and_stays_loaded(
    follower: Follower,
) -> None:
    follower.store.canary(TWO, 0.5)
    follower.follow()
    canary = follower.canary
    assert canary is not None
    follower.store.publish(TWO, "promote")
    follower.poll_once()
    follower.router.stop(canary)
    follower.rig.iterate(2)
    follower.poll_once()
    assert follower.main is canary
    assert set(label(follower, KEYS).values()) == {TWO.digest}
    assert follower.router.retired == ()


def test_a_dead_canary_is_loaded_again_for_its_promotion(follower: Follower) -> None:
    """It became current after its engine had died and before the loop noticed."""
    follower.store.canary(TWO, 0.5)
    follower.follow()
    canary: Any = follower.canary
    canary.engine.die()
    follower.store.publish(TWO, "promote")
    follower.follow()
    assert follower.main is not canary
    assert set(label(follower, KEYS).values()) == {TWO.digest}


def test_a_refused_canary_leaves_all_records_to_the_main_adapter(follower: Follower) -> None:
    directory = follower.store.add(TWO)
    (directory / "manifest.json").write_text("{}")
    follower.store.canary(THREE, 0.5)
    write_canary(
        follower.store.folder, CanaryPointer(TWO.digest, "two", 0.5, "now", "ann", reason=None)
    )
    for _ in range(3):
        follower.follow()
    assert follower.counted.log == [("refused", "files")]
    assert follower.events.refused["canary"].digest == TWO.digest
    assert set(label(follower, KEYS).values()) == {ONE.digest}


def test_the_main_adapter_labels_the_records_of_a_canary_whose_engine_dies(
    follower: Follower,
) -> None:
    follower.store.canary(TWO, 1.0)
    follower.follow()
    canary: Any = follower.canary
    canary.engine.held = True
    follower.rig.add("m0", "m1", "m2")
    follower.rig.iterate()
    canary.engine.die()
    with capture_logs() as logs:
        follower.rig.iterate(3)
    found = stamps(follower.rig.stream.outputs)
    assert [digest for _, digest in found.values()] == [ONE.digest] * 3
    assert follower.events.stopped["canary"].reason == "engine"
    assert [event["event"] for event in logs].count("adapter.canary_stopped") == 1
    follower.follow()
    assert follower.canary is None, "it was started again"


def test_the_main_adapter_labels_the_records_of_a_canary_that_hangs(tmp_path: Path) -> None:
    rig = Rig(policy=WIDE, deadline_s=30.0)
    follower = Follower(AdapterStore(tmp_path), ONE, rig=rig)
    rig.stream.assign(0)
    follower.store.canary(TWO, 1.0)
    follower.follow()
    canary: Any = follower.canary
    canary.engine.held = True
    rig.add(*(f"m{n}" for n in range(12)))
    rig.iterate(60)
    assert {digest for _, digest in stamps(rig.stream.outputs).values()} == {ONE.digest}
    assert rig.committed() == 12
    assert follower.counted.log[-1] == ("stopped", "engine")


# The comparison


def toy(name: str) -> Manifest:
    return replace(toy_manifest(), name=name)


def watched(tmp_path: Path, p_canary: float, **policy: Any) -> Follower:
    """A main adapter that is always sure, and a canary with the confidence ``p_canary``."""
    main, canary = toy("main"), toy("canary")
    loader = FakeLoader()
    loader.respond[main.digest] = lambda _: answer_with(main, "billing", 0.9)
    loader.respond[canary.digest] = lambda _: answer_with(canary, "billing", p_canary)
    follower = Follower(AdapterStore(tmp_path), main, rig=Rig(policy=WIDE), loader=loader)
    judge = CanaryJudge(follower.router, follower.events, make_judge_policy(**policy))
    follower.rig.on_published(lambda batch: judge(Published(batch, 0.0)))
    follower.rig.stream.assign(0)
    follower.store.canary(canary, 0.5)
    follower.follow()
    return follower


def test_a_canary_that_sends_more_to_review_is_stopped(tmp_path: Path) -> None:
    """Its share goes to the main adapter for good, with an event in log and metrics."""
    follower = watched(tmp_path, 0.5, min_messages=50)
    with capture_logs() as logs:
        label(follower, KEYS)
    assert follower.canary is None
    assert follower.counted.log[-1][0] == "stopped"
    stopped = follower.events.stopped["canary"]
    assert stopped.reason in {"review", "confidence"}
    [event] = [logged for logged in logs if logged["event"] == "adapter.canary_stopped"]
    assert "evidence" in event["detail"]
    digests = stamps(follower.rig.stream.outputs).values()
    served = [digest for _, digest in digests if digest != follower.main.digest]
    assert 50 <= len(served) < 200
    follower.follow()
    follower.poll_once()
    assert follower.canary is None
    assert len(follower.loader.open) == 1


def test_a_canary_whose_answers_are_all_rejected_is_stopped(tmp_path: Path) -> None:
    follower = watched(tmp_path, 0.9, min_messages=50)
    canary: Any = follower.canary
    canary.engine.fake._respond = lambda _: MessageRejected("engine_rejected", "no")
    for key in KEYS:
        follower.rig.stream.add(b"hello", key=key)
    while follower.rig.committed() < len(KEYS):
        follower.rig.iterate()
    assert follower.canary is None
    assert follower.events.stopped["canary"].reason == "rejected"
    dead = [sent for sent in follower.rig.stream.outputs if sent.topic == "dead"]
    assert 50 <= len(dead) < 120


def rejecting(rate: float, share: float, seed: int) -> ArmComparison:
    """A trial of at most 1,600 messages in which some answers are rejected."""
    rng, comparison = random.Random(seed), ArmComparison(make_judge_policy())
    for number in range(1_600):
        canary = rng.random() < share
        rejected = canary and rng.random() < rate
        comparison.add(
            number.to_bytes(4, "big"),
            canary=canary,
            review=False,
            confidence=None if rejected else 1 - 0.4 * rng.random() ** 3,
        )
        if comparison.worse:
            break
    return comparison


@pytest.mark.parametrize(("rate", "most"), [(1.0, 220), (0.2, 300)])
def test_a_canary_that_rejects_is_stopped_soon(rate: float, most: int) -> None:
    trials = [rejecting(rate, share, seed) for share in (0.25, 0.5) for seed in range(8)]
    assert {trial.worse for trial in trials} == {"rejected"}
    assert sorted(trial.messages for trial in trials)[len(trials) // 2] <= most


def test_a_canary_whose_pointer_is_written_again_starts_over(tmp_path: Path) -> None:
    follower = watched(tmp_path, 0.5, min_messages=50)
    label(follower, KEYS)
    follower.store.canary(toy("canary"), 0.25)
    follower.follow()
    assert follower.canary is not None
    assert follower.events.stopped == {}


@pytest.mark.parametrize(("confidence", "min_messages"), [(0.5, 100_000), (0.9, 20)])
def test_no_canary_is_stopped_that_is_as_good_or_had_a_handful_of_messages(
    tmp_path: Path, confidence: float, min_messages: int
) -> None:
    follower = watched(tmp_path, confidence, min_messages=min_messages)
    label(follower, KEYS)
    assert follower.canary is not None


def test_each_key_counts_once() -> None:
    """A thousand doubtful messages of one customer are one doubtful customer."""
    comparison = ArmComparison(make_judge_policy(min_messages=1))
    for number in range(40):
        comparison.add(b"k%d" % number, canary=bool(number % 2), review=False, confidence=0.9)
    value = comparison.value
    for _ in range(1000):
        comparison.add(b"k1", canary=True, review=True, confidence=0.1)
    assert comparison.value == value
    assert comparison.messages == 20
    assert BLOCK == 20


def test_unreadable_records_are_not_evidence(tmp_path: Path) -> None:
    follower = watched(tmp_path, 0.9, min_messages=1)
    for number in range(100):
        follower.rig.stream.add(None, key=b"%d" % number)
    follower.rig.iterate(10)
    assert json.dumps(follower.counted.log) == json.dumps(["loaded"])


def hypergeometric(first: int, second: int, marked: int) -> dict[int, float]:
    total = math.comb(first + second, marked)
    return {
        in_first: math.comb(first, in_first) * math.comb(second, marked - in_first) / total
        for in_first in range(max(0, marked - second), min(first, marked) + 1)
    }


@given(st.integers(0, 12), st.integers(0, 12), st.data())
def test_a_bet_is_fair_whatever_is_marked(first: int, second: int, data: st.DataObject) -> None:
    """If the arms do not differ, the mean evidence after a block is exactly 1."""
    marked = data.draw(st.integers(0, first + second))
    mean = 0.0
    for in_first, chance in hypergeometric(first, second, marked).items():
        evidence = Evidence()
        evidence.add(first, in_first, second, marked - in_first)
        mean += chance * evidence.value
    assert mean == pytest.approx(1.0)


def test_false_stops_are_rare_although_every_block_is_tested() -> None:
    """300 comparisons of 100 blocks between equal arms, with a rate of one in twenty."""
    rng = random.Random(7)
    crossed = 0
    for _ in range(300):
        evidence, highest = Evidence(), 0.0
        for _ in range(100):
            first = sum(rng.random() < 0.3 for _ in range(20))
            a = sum(rng.random() < 0.2 for _ in range(first))
            b = sum(rng.random() < 0.2 for _ in range(20 - first))
            evidence.add(first, a, 20 - first, b)
            highest = max(highest, evidence.value)
        crossed += highest >= 20
    assert crossed / 300 < 0.05
