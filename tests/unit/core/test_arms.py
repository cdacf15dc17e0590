"""Arms: which adapter labels which share, and which one takes over when an arm ends."""

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


@given(st.binary(max_size=40), st.integers(0, 10**6), st.integers(0, 7))
def test_a_key_stays_in_its_share_on_every_worker_and_in_every_delivery(
    key: bytes, offset: int, partition: int
) -> None:
    record = toy_record(key=key)
    other = toy_record(key=key, offset=offset, source=TopicPartition("in", partition), value=b"x")
    assert 0 <= place_of(record, "s") == place_of(other, "s") < 1


def test_a_record_without_a_key_stays_in_its_share_when_it_is_read_again() -> None:
    record = toy_record(key=None)
    assert place_of(record, "s") == place_of(toy_record(key=None, value=b"other"), "s")
    assert place_of(record, "s") != place_of(toy_record(key=None, offset=43), "s")


def test_a_share_has_its_size_and_two_shares_are_independent() -> None:
    """A tenth of the keys, and a tenth of these in another arm's tenth."""
    keys = [toy_record(key=b"customer-%d" % n) for n in range(20_000)]
    first = {record.key for record in keys if place_of(record, "canary a") < 0.1}
    second = {record.key for record in keys if place_of(record, "shadow a") < 0.1}
    assert 1850 < len(first) < 2150
    assert 130 < len(first & second) < 270


NEXT = ArmRole("next", judged=True, fallback="canary")  # type: ignore[arg-type]
"""A role that does not exist today: a second trial, within the canary's share."""

RECORDS = [toy_record(key=b"customer-%d" % n) for n in range(400)]


def adapter() -> ServingAdapter:
    return toy_serving_adapter(manifest=small_manifest())


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> TrafficSplit:
    """Four arms, one of them with a role that only ``arms`` knows."""
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
    assert [arm.role.name for arm in split.arms] == ["main", "canary", "next", "shadow"]
    other = Arm(CANARY, adapter(), 0.3)
    changed = split.with_arm(other)
    assert of(changed, CANARY) is other
    assert len(changed.arms) == 4


def test_shares_of_arms_that_label_add_up_to_1(split: TrafficSplit) -> None:
    assert split.ratios == pytest.approx((0.6, 0.2, 0.2, 0.5))


def test_each_record_has_one_adapter_and_the_shadows_in_whose_share_it_is(
    split: TrafficSplit,
) -> None:
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


def test_a_dead_arms_records_go_to_its_fallback_and_an_arm_without_one_ends_the_worker(
    split: TrafficSplit,
) -> None:
    events = RouterEvents()
    router = AdapterRouter(split, events)
    error = EngineDied("gone")
    canary, second = of(split, CANARY).adapter, of(split, NEXT).adapter
    assert router.fail(second, error) is canary
    assert router.split.get(NEXT) is None
    assert router.fail(second, error) is split.main, "it no longer serves"
    assert router.fail(canary, error) is split.main
    assert [kind for kind, _ in events.log].count("failed") == 2, "reported once each"
    with pytest.raises(EngineDied):
        router.fail(split.main, error)
    router.stop(split.main)
    assert router.main is split.main


def test_an_arm_whose_fallback_has_ended_falls_back_to_main(split: TrafficSplit) -> None:
    left = split.without(CANARY)
    assert left.fallback_of(of(left, NEXT)).adapter is split.main
    assert split.without(MAIN) == split
