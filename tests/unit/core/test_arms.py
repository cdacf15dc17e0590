"""Arms: who labels which share, and who does the records of an arm that ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rig import RouterEvents, toy_record
from tests.support.toy_adapter import small_manifest, toy_serving_adapter
from worker.core import arms
from worker.core.arms import (
    CANARY,
    MAIN,
    SHADOW,
    AdapterRouter,
    Arm,
    ArmRole,
    TrafficSplit,
    place_of,
)
from worker.core.labeller import ServingAdapter
from worker.errors import EngineDied
from worker.records.types import TopicPartition

# Shares of traffic by hash.


@given(st.binary(max_size=40), st.integers(0, 10**6), st.integers(0, 7))
def test_a_key_has_one_place_wherever_its_records_are(
    key: bytes, offset: int, partition: int
) -> None:
    """So it stays in a share that grows, on every worker, in every delivery."""
    record = toy_record(key=key)
    other = toy_record(key=key, offset=offset, source=TopicPartition("in", partition), value=b"x")
    assert 0 <= place_of(record, "s") == place_of(other, "s") < 1


def test_a_record_without_a_key_has_its_ids_place() -> None:
    """A record that is read again after a rebalance is in the same share."""
    record = toy_record(key=None)
    assert place_of(record, "s") == place_of(toy_record(key=None, value=b"other"), "s")
    assert place_of(record, "s") != place_of(toy_record(key=None, offset=43), "s")


def test_a_share_is_what_it_says_and_two_shares_are_independent() -> None:
    """A tenth is a tenth, and of the tenth of another salt a tenth is in it."""
    keys = [toy_record(key=b"customer-%d" % n) for n in range(20_000)]
    first = {record.key for record in keys if place_of(record, "canary a") < 0.1}
    second = {record.key for record in keys if place_of(record, "shadow a") < 0.1}
    assert 1850 < len(first) < 2150
    assert 130 < len(first & second) < 270


NEXT = ArmRole("next", judged=True, fallback="canary")  # type: ignore[arg-type]
"""A role that is not there today: a second trial, in the canary's part of the traffic."""

RECORDS = [toy_record(key=b"customer-%d" % n) for n in range(400)]


def adapter() -> ServingAdapter:
    return toy_serving_adapter(manifest=small_manifest())


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> TrafficSplit:
    """Four arms, of which one has a role that no module but ``arms`` was told of."""
    monkeypatch.setattr(arms, "ARM_ROLES", (MAIN, CANARY, NEXT, SHADOW))
    made = TrafficSplit.all_to(adapter())
    for role, share in ((SHADOW, 0.5), (NEXT, 0.25), (CANARY, 0.2)):
        made = made.with_arm(Arm(role, adapter(), share))
    return made


def of(split: TrafficSplit, role: ArmRole) -> Arm:
    arm = split.get(role)
    assert arm is not None
    return arm


def test_arms_are_in_the_order_of_their_roles_and_a_role_has_one(split: TrafficSplit) -> None:
    """Whatever order they came in; a second adapter in a role takes the first one's place."""
    assert [arm.role.name for arm in split.arms] == ["main", "canary", "next", "shadow"]
    other = Arm(CANARY, adapter(), 0.3)
    changed = split.with_arm(other)
    assert of(changed, CANARY) is other
    assert len(changed.arms) == 4


def test_what_arms_that_label_take_adds_up_to_all(split: TrafficSplit) -> None:
    """A later arm has its share of what is left; a shadow has its share of all, next to them."""
    assert split.ratios == pytest.approx((0.6, 0.2, 0.2, 0.5))


def test_each_record_has_one_adapter_and_as_many_shadows_as_it_is_in_the_share_of(
    split: TrafficSplit,
) -> None:
    """By its key's place under the role and the digest, the first arm that takes it."""
    router = AdapterRouter(split, RouterEvents())
    for record in RECORDS:
        expected = split.main
        for role in (NEXT, CANARY):
            arm = of(split, role)
            if place_of(record, f"{role.name} {arm.adapter.digest}") < arm.share:
                expected = arm.adapter
        assert router.choose(record) is expected
        shadow = of(split, SHADOW)
        shown = place_of(record, f"shadow {shadow.adapter.digest}") < 0.5
        assert router.choose_shadows(record) == ([shadow.adapter] if shown else [])
    assert {router.choose(record) for record in RECORDS} == {
        arm.adapter for arm in split.arms if arm.role.labels
    }


def test_a_dead_arms_records_are_its_fallbacks_and_the_worker_ends_with_what_has_none(
    split: TrafficSplit,
) -> None:
    """A fallback that is not there is the main arm's to stand in for."""
    events = RouterEvents()
    router = AdapterRouter(split, events)
    error = EngineDied("gone")
    canary, second = of(split, CANARY).adapter, of(split, NEXT).adapter
    assert router.fail(second, error) is canary
    assert router.split.get(NEXT) is None
    assert router.fail(second, error) is split.main, "it serves no more"
    assert router.fail(canary, error) is split.main
    assert [kind for kind, _ in events.log].count("failed") == 2, "told once each"
    with pytest.raises(EngineDied):
        router.fail(split.main, error)
    router.stop(split.main)
    assert router.main is split.main


def test_without_its_fallback_an_arm_falls_back_on_the_main_one(split: TrafficSplit) -> None:
    """Its own fallback may have ended before it."""
    left = split.without(CANARY)
    assert left.fallback_of(of(left, NEXT)).adapter is split.main
    assert split.without(MAIN) == split


def test_no_share_is_no_record() -> None:
    """And all is all."""
    assert not any(Arm(CANARY, adapter(), 0.0).takes(record) for record in RECORDS)
    assert all(Arm(CANARY, adapter(), 1.0).takes(record) for record in RECORDS)
