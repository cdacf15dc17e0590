"""A loop with a retry topic, on the fakes: messages that are refused, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.records import Published, read_output
from tests.support.rig import Rig
from worker.contract.records import Headers, Retry
from worker.errors import MessageRejected
from worker.records.encode import RetryPolicy
from worker.records.types import Outgoing, Record

POLICY = RetryPolicy("retry", delay_s=10.0, max_attempts=2)
REFUSED = MessageRejected("engine_rejected", "why")
OWN: Headers = (("trace", b"\xff\x00"), ("none", None))


def rig_with(*texts: str, headers: Headers = OWN, **options: Any) -> Rig:
    """A rig with a retry topic, everything assigned, and these messages in the engine."""
    rig = Rig(**{"retry": POLICY, "max_attempts": 1, **options})
    add(rig, *texts, headers=headers)
    rig.stream.assign(*range(len(rig.stream.sources)))
    rig.iterate()
    return rig


def add(rig: Rig, *texts: str, partition: int = 0, headers: Headers = ()) -> None:
    for text in texts:
        record = rig.stream.add(text.encode(), partition, key=b"k")
        rig.stream.log[record.source][-1] = replace(record, headers=headers)


def refuse(rig: Rig, text: str = "m0") -> None:
    """The engine refuses a message; the batch is published."""
    rig.engine.fail(text, REFUSED)
    rig.iterate()


def results(rig: Rig) -> list[Published]:
    """What was published to the topics for results."""
    return [read_output(each) for each in rig.stream.outputs if each.topic != "retry"]


def waiting(rig: Rig) -> list[Outgoing]:
    """What was published to the retry topic."""
    return [each for each in rig.stream.outputs if each.topic == "retry"]


def now_ms(rig: Rig) -> int:
    return int(rig.wall().timestamp() * 1000)


def of_retry(rig: Rig, headers: Headers, text: str = "stranger") -> None:
    """Append a record to the retry topic as some producer might."""
    source = rig.stream.sources[-1]
    log = rig.stream.log[source]
    log.append(Record(source, len(log), b"k", text.encode(), headers, 1_600_000_000_000))


def made_up(rig: Rig, due_in_s: float, offset: int = 7, **changes: Any) -> Retry:
    due = now_ms(rig) + int(due_in_s * 1000)
    return replace(
        Retry("in", 0, offset, 17, 1, due, "engine_rejected", 1_700_000_000_000, 1), **changes
    )
