"""The checker and the retry topic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.offline.test_verify_check import DIGEST, PARTITIONS, SINKS, result_of
from worker.offline.verify_check import Checker, Place, RetryRecord, Span, Verdict
from worker.records.types import TopicPartition

SOURCE, SINK = PARTITIONS[0], SINKS[0]
RETRY = TopicPartition("retry", 0)


def retry_of(
    offset: int, attempt: int = 1, *, waits: bool = False, source: TopicPartition = SOURCE
) -> RetryRecord:
    return RetryRecord(source, offset, attempt, waits, Place(RETRY, 0))


def judge(
    retries: list[RetryRecord],
    results: list[int],
    inputs: int = 10,
    *,
    repeats_allowed: bool = False,
) -> Verdict:
    """So many input records; retries are read before results, as the command does."""
    checker = Checker({SOURCE: Span(0, inputs, inputs)}, repeats_allowed=repeats_allowed)
    for offset in range(inputs):
        checker.add_input(SOURCE, offset)
    for retry in retries:
        checker.add_retry(retry)
    for offset in results:
        checker.add_result(result_of(SOURCE, offset, SINK))
    return checker.verdict()


def faults(verdict: Verdict) -> dict[str, int]:
    return {name: count for name, count in verdict.faults.items() if count}


def test_a_message_that_waits_is_pending_and_not_missing() -> None:
    verdict = judge([retry_of(3, waits=True)], [0, 1, 2, 4, 5, 6, 7, 8, 9])
    assert (faults(verdict), verdict.is_proven) == ({}, True)
    assert (verdict.waiting, verdict.retries) == (1, 1)


def test_a_retry_and_a_final_result_are_fine_and_out_of_order() -> None:
    verdict = judge([retry_of(3), retry_of(3, 2)], [0, 1, 2, 4, 5, 3, 6, 7, 8, 9])
    assert (faults(verdict), verdict.waiting, verdict.retries) == ({}, 0, 2)
    assert faults(judge([retry_of(3)], [0, 1, 2, 5, 4, 3, 6, 7, 8, 9])) == {"out_of_order": 1}


def test_a_committed_retry_without_a_result_is_missing() -> None:
    verdict = judge([retry_of(3), retry_of(4)], [0, 1, 2, 4, 5, 6, 7, 8, 9])
    assert faults(verdict) == {"missing": 1}
    (offender,) = verdict.offenders
    assert offender.id == "in-0-3"


def test_two_results_of_a_retried_message_are_twice() -> None:
    verdict = judge([retry_of(3)], [0, 1, 2, 4, 5, 6, 7, 8, 9, 3, 3])
    assert faults(verdict) == {"twice": 1}
    allowed = judge([retry_of(3)], [0, 1, 2, 4, 5, 6, 7, 8, 9, 3, 3], repeats_allowed=True)
    assert (faults(allowed), allowed.repeated) == ({}, 1)


def test_one_attempt_that_is_put_there_twice_is_twice() -> None:
    results = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    retries = [retry_of(3), retry_of(3, 2, waits=True), retry_of(3, 2, waits=True)]
    assert faults(judge(retries, results)) == {"twice": 1}
    verdict = judge(retries, results, repeats_allowed=True)
    assert (faults(verdict), verdict.repeated, verdict.waiting) == ({}, 1, 1)


@pytest.mark.parametrize(
    "retry", [retry_of(10), retry_of(1 << 40), retry_of(0, source=TopicPartition("other", 0))]
)
def test_a_retry_of_what_does_not_exist_is_foreign(retry: RetryRecord) -> None:
    verdict = judge([retry], list(range(10)))
    assert faults(verdict) == {"foreign": 1}
    assert verdict.offenders[0].place == "retry-0-0"


def test_outside_of_the_range_and_where_the_input_is_compacted_it_proves_nothing() -> None:
    checker = Checker({SOURCE: Span(5, 8, 10)}, compacted=True)
    checker.add_input(SOURCE, 5)
    for offset in (4, 6, 9):
        checker.add_retry(retry_of(offset, waits=True))
    checker.add_result(result_of(SOURCE, 5, SINK))
    verdict = checker.verdict()
    assert (faults(verdict), verdict.waiting, verdict.retries) == ({}, 0, 3)


@given(st.integers(0, 2**32))
def test_counts_are_those_of_a_plain_recount(seed: int) -> None:
    """Against sets and lists, with any combination of losses and duplicates."""
    rng = random.Random(seed)
    retries, results, waiting, missing = [], [], 0, 0
    for offset in range(40):
        attempts = rng.choice([0, 0, 0, 1, 2])
        retries += [retry_of(offset, number + 1) for number in range(attempts)]
        end = rng.choice(["result", "result", "waits", "lost"])
        if end == "result":
            results.append((rng.random() if attempts else offset / 1000, offset))
        elif end == "waits":
            retries.append(retry_of(offset, attempts + 1, waits=True))
            waiting += 1
        else:
            missing += 1
    verdict = judge(retries, [offset for _, offset in sorted(results)], 40)
    assert (verdict.waiting, verdict.faults["missing"]) == (waiting, missing)
    assert set(faults(verdict)) <= {"missing"}
    assert sum(each.results for each in verdict.adapters if each.digest == DIGEST) == len(results)
