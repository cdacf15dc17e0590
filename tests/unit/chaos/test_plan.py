"""The plan of faults: the seed alone decides it, and it can be carried out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.plan import BROKER, KINDS, STORE, PlanRequest, draw_plan, worker_name
from tests.chaos.run import CARRY_OUT

REQUEST = PlanRequest(seed=7, faults=200, duration_s=600.0)


def test_the_same_seed_gives_the_same_plan() -> None:
    """Another seed gives another."""
    assert draw_plan(REQUEST) == draw_plan(REQUEST)
    assert draw_plan(REQUEST) != draw_plan(replace(REQUEST, seed=8))


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_has_every_kind_in_time(seed: int) -> None:
    """Each at least once, in the order of time, numbered from 1, within about the duration."""
    plan = draw_plan(replace(REQUEST, seed=seed))
    assert len(plan) == REQUEST.faults
    assert {fault.kind for fault in plan} == set(KINDS)
    assert [fault.number for fault in plan] == list(range(1, 201))
    assert [fault.at_s for fault in plan] == sorted(fault.at_s for fault in plan)
    assert 0.8 * REQUEST.duration_s < plan[-1].at_s < 1.2 * REQUEST.duration_s


@pytest.mark.parametrize("seed", range(20))
def test_two_workers_always_take_part_and_four_at_most(seed: int) -> None:
    """Nobody joins twice or leaves while away, and no fault meets a place without a worker."""
    up = {worker_name(0), worker_name(1)}
    for fault in draw_plan(replace(REQUEST, seed=seed)):
        if fault.kind == "join":
            assert fault.target not in up
            up.add(fault.target)
        elif fault.target not in {BROKER, STORE}:
            assert fault.target in up
        if fault.kind == "leave":
            up.remove(fault.target)
        assert {worker_name(0), worker_name(1)} <= up
        assert len(up) <= 4


def test_a_short_plan_has_each_kind_once() -> None:
    """So a short run tries everything."""
    plan = draw_plan(replace(REQUEST, faults=len(KINDS), duration_s=60.0))
    assert Counter(fault.kind for fault in plan) == Counter(KINDS)


def test_a_plan_of_chosen_kinds_has_no_other() -> None:
    """A kind that is not possible at first waits for its turn."""
    plan = draw_plan(replace(REQUEST, kinds=("leave", "join")))
    assert {fault.kind for fault in plan} == {"leave", "join"}
    assert plan[0].kind == "join"


def test_what_cannot_be_drawn_is_refused() -> None:
    """An unknown kind, and one that is never possible."""
    with pytest.raises(ValueError, match="kinds must be some of"):
        draw_plan(replace(REQUEST, kinds=()))
    with pytest.raises(ValueError, match="none of leave is possible"):
        draw_plan(replace(REQUEST, kinds=("leave",)))


def test_every_kind_can_be_carried_out() -> None:
    """Nothing is planned that nobody does."""
    assert set(CARRY_OUT) == set(KINDS)
