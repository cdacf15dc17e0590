"""Choosing records by their current results."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.contract.records import Replay, supersedes
from worker.offline.records import ReadResult
from worker.offline.replay_plan import Criteria, Selector
from worker.records.types import TopicPartition

SOURCE = TopicPartition("in", 0)
REPLAYS = [
    None,
    Replay("early", "2026-03-02T08:00:00Z", ""),
    Replay("late", "2026-03-03T08:00:00Z", ""),
    Replay("own", "2026-03-04T08:00:00Z", ""),
]


def label(offset: int, name: str, replay: Replay | None = None, **changes: bool) -> ReadResult:
    return ReadResult(SOURCE, offset, "ab" * 32, replay, name, changes.get("review", False), None)


def dead(offset: int, reason: str, replay: Replay | None = None) -> ReadResult:
    return ReadResult(SOURCE, offset, "cd" * 32, replay, None, False, reason)


def test_each_choice_by_example() -> None:
    every = [
        label(0, "billing"),
        label(1, "delivery", review=True),
        dead(2, "not_json"),
        dead(3, "deadline_exceeded"),
    ]
    for criteria, offsets in (
        (Criteria(dead_letters=True), [2, 3]),
        (Criteria(reasons=("not_json",)), [2]),
        (Criteria(review=True), [1]),
        (Criteria(labels=("billing",)), [0]),
        (Criteria(labels=("billing", "delivery")), [0, 1]),
        (Criteria(made_by="abab"), [0, 1]),
        (Criteria(made_by="cd", reasons=("not_json",)), [2]),
        (Criteria(made_by="ab", dead_letters=True), []),
        (Criteria(review=True, labels=("billing",)), []),
        (Criteria(review=True, labels=("delivery",), made_by="ab"), [1]),
    ):
        selector = Selector(criteria, "own")
        for result in every:
            selector.add(result)
        assert list(selector.selected(SOURCE)) == offsets, criteria


histories = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["billing", "other", ""]), st.integers(0, 3)),
    unique_by=lambda made: (made[0], made[2]),
)


@given(histories, st.randoms())
def test_the_current_result_decides(history: list[tuple[int, str, int]], rng: object) -> None:
    results = [
        label(offset, name, REPLAYS[run]) if name else dead(offset, "not_json", REPLAYS[run])
        for offset, name, run in history
    ]
    selector = Selector(Criteria(labels=("billing",)), "own")
    for result in results:
        selector.add(result)
    in_force: dict[int, ReadResult] = {}
    for result in results:
        if result.replay == REPLAYS[3]:
            continue
        held = in_force.get(result.offset)
        if held is None or supersedes(result.replay, held.replay):
            in_force[result.offset] = result
    wanted = [offset for offset, held in sorted(in_force.items()) if held.label == "billing"]
    assert list(selector.selected(SOURCE)) == wanted
