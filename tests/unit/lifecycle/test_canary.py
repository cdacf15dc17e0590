"""A canary serves a share of the keys, can be compared, and is stopped when it does worse."""

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
from tests.support.toy_adapter import ONE, THREE, TWO, answer_with, labels_of, stamps, toy_manifest
from worker.contract import Manifest
from worker.contract.store import CanaryPointer, remove_canary, write_canary
from worker.core.arms import place_of
from worker.core.events import Published
from worker.errors import MessageRejected
from worker.lifecycle.canary_judge import BLOCK, ArmComparison, CanaryJudge, Evidence, marked_lowest

pytestmark = pytest.mark.slow


def label(follower: Follower, keys: Sequence[bytes | None]) -> dict[bytes | None, str]:
    """Have a message of each key labelled; return the digest that each got."""
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


def test_a_key_always_has_the_same_arm_and_a_growing_share_only_adds_keys(
    follower: Follower,
) -> None:
    """A customer is not labelled by two adapters in turn."""
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


def test_each_arm_labels_by_its_own_contract(follower: Follower) -> None:
    """Label and stamp agree in both, in one batch."""
    follower.store.canary(TWO, 0.5)
    follower.follow()
    label(follower, KEYS)
    found = stamps(follower.rig.stream.outputs)
    for name, manifest in (("one", ONE), ("two", TWO)):
        labels = {name for name, digest in found.values() if digest == manifest.digest}
        assert labels
        assert labels <= set(labels_of(name))


def test_promoted_it_serves_all_without_being_loaded_again(follower: Follower) -> None:
    """As ``promote`` moves the pointers: current first, then the canary goes."""
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
    follower.watcher.poll_once()
    assert follower.loader.loaded.count(TWO.digest) == 1
    assert len(follower.loader.open) == 1


def test_stopped_while_its_promotion_waits_it_serves_all_and_stays_loaded(
    follower: Follower,
) -> None:
    """A person's word comes after the worker's own."""
    follower.store.canary(TWO, 0.5)
    follower.follow()
    canary = follower.canary
    assert canary is not None
    follower.store.publish(TWO, "promote")
    follower.watcher.poll_once()
    follower.router.stop(canary)
    follower.rig.iterate(2)
    follower.watcher.poll_once()
    assert follower.main is canary
    assert set(label(follower, KEYS).values()) == {TWO.digest}
    assert follower.router.retired == ()


def test_a_dead_canary_is_not_promoted_but_loaded_anew(follower: Follower) -> None:
    """Its engine died before the loop could notice, and then it became current."""
    follower.store.canary(TWO, 0.5)
    follower.follow()
    canary: Any = follower.canary
    canary.engine.die()
    follower.store.publish(TWO, "promote")
    follower.follow()
    assert follower.main is not canary
    assert set(label(follower, KEYS).values()) == {TWO.digest}


def test_removed_it_is_unloaded_and_the_main_one_serves_all(follower: Follower) -> None:
    """A rollback of a canary takes the pointer away."""
    follower.store.canary(TWO, 0.9)
    follower.follow()
    label(follower, KEYS[:40])
    remove_canary(follower.store.folder)
    follower.follow()
    assert set(label(follower, KEYS).values()) == {ONE.digest}
    follower.watcher.poll_once()
    assert len(follower.loader.open) == 1


def test_a_refused_canary_leaves_all_to_the_main_one(follower: Follower) -> None:
    """Told, and not tried again until its pointer is another."""
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


def test_its_engine_dies_and_the_main_one_does_its_records(follower: Follower) -> None:
    """A canary on trial does not take the worker down."""
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
    assert follower.canary is None, "it is not tried again by itself"


def test_a_canary_that_hangs_is_stopped_and_its_records_are_done(tmp_path: Path) -> None:
    """Nothing it was given becomes a dead letter for it."""
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
    """A main adapter that is always sure, and a canary that gives its label ``p_canary``."""
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
    """Its share goes to the main adapter at once, an event and a figure say so, and it stays so."""
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
    follower.watcher.poll_once()
    assert follower.canary is None
    assert len(follower.loader.open) == 1


def test_a_canary_whose_answers_are_all_rejected_is_stopped(tmp_path: Path) -> None:
    """It fills the dead-letter topic and labels nothing: of all canaries the worst."""
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


def rejecting(rate: float, share: float, seed: int, main_rate: float = 0.0) -> ArmComparison:
    """A trial of 1,600 messages, until it is stopped, in which some answers are rejected."""
    rng, comparison = random.Random(seed), ArmComparison(make_judge_policy())
    for number in range(1_600):
        canary = rng.random() < share
        rejected = rng.random() < (rate if canary else main_rate)
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
    """All its answers, or one in five: about as soon as it may be judged at all (200)."""
    trials = [rejecting(rate, share, seed) for share in (0.25, 0.5) for seed in range(8)]
    assert {trial.worse for trial in trials} == {"rejected"}
    assert sorted(trial.messages for trial in trials)[len(trials) // 2] <= most


def test_a_canary_that_rejects_no_more_than_the_main_one_goes_on() -> None:
    """At most one in a hundred is stopped, as of those that label everything."""
    trials = [rejecting(0.2, 0.5, seed, main_rate=0.2) for seed in range(60)]
    assert sum(trial.worse is not None for trial in trials) <= 2


def test_put_on_trial_again_it_begins_anew(tmp_path: Path) -> None:
    """Anyone who writes the pointer again has looked at why it was stopped."""
    follower = watched(tmp_path, 0.5, min_messages=50)
    label(follower, KEYS)
    follower.store.canary(toy("canary"), 0.25)
    follower.follow()
    assert follower.canary is not None
    assert follower.events.stopped == {}


def test_no_canary_is_stopped_after_a_handful_of_messages(tmp_path: Path) -> None:
    """However bad they are."""
    follower = watched(tmp_path, 0.5, min_messages=100_000)
    label(follower, KEYS)
    assert follower.canary is not None


def test_a_canary_as_good_goes_on(tmp_path: Path) -> None:
    """Nothing to tell apart."""
    follower = watched(tmp_path, 0.9, min_messages=20)
    label(follower, KEYS)
    assert follower.canary is not None


def test_one_key_counts_once() -> None:
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


def test_an_arm_is_the_keys_place_under_the_canarys_digest(follower: Follower) -> None:
    """Documented, so that others can tell which customers are on trial."""
    follower.store.canary(TWO, 0.3)
    follower.follow()
    found = label(follower, KEYS[:50])
    for record in follower.rig.stream.log[follower.rig.stream.sources[0]]:
        on_trial = place_of(record, f"canary {TWO.digest}") < 0.3
        assert (found[record.key] == TWO.digest) is on_trial


def test_dead_letters_of_both_arms_are_no_evidence(tmp_path: Path) -> None:
    """What cannot be read is not the adapter's doing."""
    follower = watched(tmp_path, 0.9, min_messages=1)
    for number in range(100):
        follower.rig.stream.add(None, key=b"%d" % number)
    follower.rig.iterate(10)
    assert json.dumps(follower.counted.log) == json.dumps(["loaded"])


def test_keys_of_any_size_are_remembered_in_the_same_room() -> None:
    """A key may be a megabyte, and 65,536 of them are remembered."""
    comparison = ArmComparison(make_judge_policy(min_messages=1))
    for number in range(50):
        key = number.to_bytes(1000, "big")
        for _ in range(2):
            comparison.add(key, canary=False, review=False, confidence=0.5)
    assert len(comparison._seen) == 50
    assert max(map(len, comparison._seen)) <= 16


def hypergeometric(first: int, second: int, marked: int) -> dict[int, float]:
    total = math.comb(first + second, marked)
    return {
        in_first: math.comb(first, in_first) * math.comb(second, marked - in_first) / total
        for in_first in range(max(0, marked - second), min(first, marked) + 1)
    }


@given(st.integers(0, 12), st.integers(0, 12), st.data())
def test_a_bet_is_fair_whatever_is_marked(first: int, second: int, data: st.DataObject) -> None:
    """While the arms do not differ the evidence is 1 on average after a block: exactly."""
    marked = data.draw(st.integers(0, first + second))
    mean = 0.0
    for in_first, chance in hypergeometric(first, second, marked).items():
        evidence = Evidence()
        evidence.add(first, in_first, second, marked - in_first)
        mean += chance * evidence.value
    assert mean == pytest.approx(1.0)


def test_it_grows_when_the_first_arm_has_more_marks_and_falls_when_it_has_fewer() -> None:
    """It is about worse, not about different."""
    worse, better, same = Evidence(), Evidence(), Evidence()
    for _ in range(50):
        worse.add(5, 2, 15, 2)
        better.add(5, 0, 15, 4)
        same.add(5, 1, 15, 3)
    assert worse.value > 1000
    assert better.value < 0.1
    assert same.value < 1


def test_blocks_that_tell_nothing_change_nothing() -> None:
    """None marked, all marked, or one arm alone."""
    evidence = Evidence()
    evidence.add(5, 0, 15, 0)
    evidence.add(5, 5, 15, 15)
    evidence.add(0, 0, 20, 7)
    evidence.add(20, 7, 0, 0)
    assert evidence.value == pytest.approx(1.0)


def test_it_does_not_overflow() -> None:
    """A canary that sends everything to review for days."""
    evidence = Evidence()
    for _ in range(3000):
        evidence.add(10, 10, 10, 0)
    assert math.isfinite(evidence.value)


def test_the_lowest_are_marked() -> None:
    """A share of the block, and ties by their order."""
    assert marked_lowest([0.9, 0.1, 0.5, 0.2], 0.5) == [False, True, False, True]
    assert marked_lowest([0.5, 0.5, 0.5], 0.1) == [True, False, False]


def test_few_are_stopped_wrongly_though_looked_at_after_every_block() -> None:
    """300 comparisons of 100 blocks between arms that do not differ, at one in twenty."""
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
