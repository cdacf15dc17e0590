"""The checker: no false alarms, and each planted fault is found."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.offline.verify_check import (
    FAULTS,
    Checker,
    Fault,
    Place,
    Result,
    Span,
    Verdict,
)
from worker.records.types import TopicPartition

PARTITIONS = [TopicPartition("in", number) for number in range(3)]
SINKS = [TopicPartition(topic, number) for topic in ("out", "review", "dead") for number in (0, 1)]
DIGEST = "ab" * 32


@dataclass(slots=True)
class World:
    """Input offsets by partition, and the log of each sink partition."""

    inputs: dict[TopicPartition, list[int]]
    logs: dict[TopicPartition, list[Result]]

    def results(self) -> list[tuple[TopicPartition, int]]:
        """Where each result is."""
        return [(sink, index) for sink, log in self.logs.items() for index in range(len(log))]


def right_world(rng: random.Random, most: int = 30) -> World:
    """Offsets with gaps, like those of markers, and a result for each in order, in any sink."""
    inputs = {
        source: sorted(rng.sample(range(most * 2), rng.randint(0, most))) for source in PARTITIONS
    }
    logs: dict[TopicPartition, list[Result]] = {sink: [] for sink in SINKS}
    waiting = {source: list(offsets) for source, offsets in inputs.items()}
    while any(waiting.values()):
        source = rng.choice([source for source, left in waiting.items() if left])
        sink = rng.choice(SINKS)
        logs[sink].append(result_of(source, waiting[source].pop(0), sink))
    return World(inputs, logs)


def result_of(
    source: TopicPartition, offset: int, sink: TopicPartition, replayed: str | None = None
) -> Result:
    return Result(source, offset, DIGEST, replayed, Place(sink, 0))


def judge(world: World, **options: bool) -> Verdict:
    """Read a world as the command does: input first, then each sink's log."""
    spans = {source: Span(0, 100, 100) for source in PARTITIONS}
    checker = Checker(spans, adapters=[DIGEST[:6]], max_offenders=3, **options)
    for source, offsets in world.inputs.items():
        for offset in offsets:
            checker.add_input(source, offset)
    for sink, log in world.logs.items():
        for offset, result in enumerate(log):
            checker.add_result(replace(result, place=Place(sink, offset)))
    return checker.verdict()


def plant(world: World, fault: Fault, rng: random.Random) -> bool:
    """Plant one fault; return False if this world has no place for it."""
    places = world.results()
    if fault == "foreign":
        taken = {*world.inputs[PARTITIONS[0]]}
        offset = rng.choice([*(set(range(100)) - taken), 100, 5000])
        world.logs[rng.choice(SINKS)].append(result_of(PARTITIONS[0], offset, SINKS[0]))
        return True
    if not places:
        return False
    sink, index = rng.choice(places)
    log = world.logs[sink]
    if fault == "missing":
        del log[index]
    elif fault == "twice":
        world.logs[rng.choice(SINKS)].append(log[index])
    elif fault == "unknown_adapter":
        log[index] = replace(log[index], adapter_digest="cd" * 32)
    else:
        later = next(
            (n for n in range(index + 1, len(log)) if log[n].source == log[index].source), 0
        )
        if not later:
            return False
        log[index], log[later] = log[later], log[index]
    return True


seeds = st.integers(0, 2**32)


@given(seeds)
def test_correct_results_are_proven(seed: int) -> None:
    world = right_world(random.Random(seed))
    verdict = judge(world)
    assert verdict.is_proven, verdict.offenders
    assert verdict.inputs == verdict.results == sum(map(len, world.inputs.values()))


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "unreadable"])
@settings(max_examples=60)
@given(seed=seeds)
def test_each_planted_fault_is_found_and_no_other(fault: Fault, seed: int) -> None:
    rng = random.Random(seed)
    world = right_world(rng)
    if not plant(world, fault, rng):
        return
    verdict = judge(world)
    assert not verdict.is_proven
    found = {name for name, count in verdict.faults.items() if count}
    assert found == {fault}
    if fault != "out_of_order":  # a swap may put several after the later one
        assert verdict.faults[fault] == 1
    assert {offender.fault for offender in verdict.offenders} == {fault}
    assert all(offender.id and offender.id.startswith("in-") for offender in verdict.offenders)
    assert len(verdict.offenders) == min(3, verdict.faults[fault])


@given(seeds, st.lists(st.sampled_from(FAULTS), max_size=12))
def test_counts_are_those_of_a_plain_recount(seed: int, faults: list[Fault]) -> None:
    """Against sets and lists, with any combination of losses and duplicates."""
    rng = random.Random(seed)
    world = right_world(rng)
    for fault in faults:
        if fault not in {"unreadable", "unknown_adapter"}:
            plant(world, fault, rng)
    verdict = judge(world)
    real = {(source, offset) for source, offsets in world.inputs.items() for offset in offsets}
    seen = Counter((result.source, result.offset) for log in world.logs.values() for result in log)
    assert verdict.faults["missing"] == len(real - set(seen))
    assert verdict.faults["foreign"] == sum(n for key, n in seen.items() if key not in real)
    assert verdict.faults["twice"] == sum(n - 1 for key, n in seen.items() if key in real)


@given(seeds)
def test_a_replay_is_one_more_result_and_no_double(seed: int) -> None:
    rng = random.Random(seed)
    world = right_world(rng)
    again = [log[index] for log in list(world.logs.values()) for index in range(len(log))]
    for run in ("monday", "tuesday"):
        for result in sorted(again, key=lambda one: (one.source.partition, one.offset)):
            world.logs[SINKS[0]].append(replace(result, replay=run))
    verdict = judge(world)
    assert verdict.is_proven, verdict.offenders
    assert verdict.replayed == 2 * len(again)
    if again:
        world.logs[SINKS[1]].append(replace(rng.choice(again), replay="monday"))
        assert judge(world).faults["twice"] == 1


def test_a_replay_replaces_a_lost_result() -> None:
    source, sink = PARTITIONS[0], SINKS[0]
    world = World({source: [4, 5]}, {sink: [result_of(source, 4, sink)]})
    assert judge(world).faults["missing"] == 1
    world.logs[sink].append(result_of(source, 5, sink, "after-the-fix"))
    assert judge(world).is_proven


@given(seeds)
def test_at_least_once_may_repeat_and_not_lose(seed: int) -> None:
    rng = random.Random(seed)
    world = right_world(rng)
    if not plant(world, "twice", rng):
        return
    verdict = judge(world, repeats_allowed=True)
    assert verdict.is_proven
    assert verdict.repeated == 1
    plant(world, "missing", rng)
    plant(world, "missing", rng)
    assert not judge(world, repeats_allowed=True).is_proven


def test_outside_of_the_range_nothing_is_judged() -> None:
    source, sink = PARTITIONS[0], SINKS[0]
    checker = Checker({source: Span(10, 20, 30)})
    for offset in range(10, 20):
        checker.add_input(source, offset)
    checker.forget_before(source, 15)
    for place, offset in enumerate((3, 12, *range(15, 20), 25, 30, -1)):
        checker.add_result(Result(source, offset, DIGEST, None, Place(sink, place)))
    verdict = checker.verdict()
    assert (verdict.inputs, verdict.outside) == (5, 3)
    assert {fault: n for fault, n in verdict.faults.items() if n} == {"foreign": 2}


def test_a_compacted_input_makes_no_result_foreign() -> None:
    source, sink = PARTITIONS[0], SINKS[0]
    checker = Checker({source: Span(0, 10, 10)}, compacted=True)
    checker.add_input(source, 9)
    for offset in (3, 9):
        checker.add_result(result_of(source, offset, sink))
    verdict = checker.verdict()
    assert verdict.is_proven
    assert verdict.compacted == 1


def test_foreign_records_are_reported_by_their_place() -> None:
    checker = Checker({})
    checker.add_unreadable(Place(SINKS[0], 7), "the output record: the value is not JSON")
    (offender,) = checker.verdict().offenders
    assert (offender.fault, offender.id, offender.place) == ("unreadable", None, "out-0-7")
