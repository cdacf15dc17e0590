"""Mutated payloads through the decoders: each gives a message or a rejection, or this stops.

python -m tests.fuzz 1000000            so many payloads; a second number is the seed
python -m tests.fuzz slow --minutes 10  texts that take long instead (``tests.fuzz.slow``)
"""

from __future__ import annotations

import random
import sys
import time
import typing
from collections import Counter

from tests.fuzz import slow
from tests.fuzz.entries import LAYOUTS
from worker.contract.errors import MessageRejected, RejectReason
from worker.contract.records import decode_value

SEEDS = [
    b'{"message": "where is my order 48-1123?", "id": "T-1"}',
    b'{"subject": "lamp", "ticket": {"body": "it is broken \\ud83d\\ude4f"}, "id": 7}',
    b'{"parts": [{"text": "a"}, {"text": null}], "message": ["x"]}',
    b"\xef\xbb\xbfplain text \xf0\x9f\x99\x8f e\xcc\x81",
    b'[1e400, -0.0, 123456789012345678901234567890, NaN, "\\u0000"]',
]
PIECES = [
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b"\\ud800", b":", b",", b"null", b"1e9"),
    *(b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b" ", b"\xcc\x81" * 40),
    *(b'"message"', b'"id"', b"[" * 2000, b'{"a":' * 2000, b"9" * 5000),
]


def payload(rng: random.Random) -> bytes:
    """A seed with one to six mutations."""
    value = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 6)):
        at, kind = rng.randrange(len(value) + 1), rng.randrange(4)
        if kind == 0:
            value[at:at] = rng.choice(PIECES)
        elif kind == 1:
            del value[at : at + rng.randint(1, 8)]
        elif kind == 2:
            value[at : at + 1] = rng.randbytes(1)
        else:
            value[at:at] = value[: rng.randint(0, 30)]
    return bytes(value)


def main(count: int, seed: int) -> None:
    """Decode payloads and print the results. Raises anything that a decoder must not raise."""
    rng, outcomes, reasons = random.Random(seed), Counter[str](), typing.get_args(RejectReason)
    begin, slowest = time.monotonic(), 0.0
    for number in range(count):
        value, layout = payload(rng), rng.choice(LAYOUTS)
        started = time.thread_time()
        try:
            message = decode_value(value, layout)
        except MessageRejected as rejected:
            outcomes[rejected.reason] += 1
        except BaseException:
            print(f"payload {number} of seed {seed}, {layout}: {value!r}", file=sys.stderr)
            raise
        else:
            assert message.text.strip()
            outcomes["a message"] += 1
        slowest = max(slowest, time.thread_time() - started)
    assert sum(outcomes.values()) == count
    assert set(outcomes) <= {"a message", *reasons}
    print(f"{count} payloads in {time.monotonic() - begin:.0f} s, slowest {slowest * 1000:.1f} ms")
    for name, times in outcomes.most_common():
        print(f"  {name}: {times}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["slow"]:
        sys.exit(slow.main(sys.argv[2:]))
    _given = [int(argument) for argument in sys.argv[1:]]
    main(_given[0] if _given else 1_000_000, _given[1] if len(_given) > 1 else 1)
