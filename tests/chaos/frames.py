"""Kafka's frames, as far as a proxy has to know them: requests by their kind, answers by their
request, and the broker's address in those that name it. Pure.

A frame is a length (int32) and so many bytes. Those of a request begin with its kind (int16), its
version (int16) and a number (int32) that its answer begins with, in every version of the protocol.
"""

from __future__ import annotations

import struct
from collections import Counter

METADATA = 3
OFFSET_COMMIT = 8
FIND_COORDINATOR = 10
INIT_PRODUCER_ID = 22
END_TXN = 26
DESCRIBE_CLUSTER = 60

# Answers that say where brokers are; the address is a string and then a port (int32).
_NAMES_BROKERS = {METADATA, FIND_COORDINATOR, DESCRIBE_CLUSTER}
_LARGEST = 128 * 1024 * 1024


class FrameSplitter:
    """Cuts a stream of bytes into whole frames, each with its length in front."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes in; return the frames that are complete. Raises ValueError for no frame."""
        self._rest += chunk
        frames = []
        while len(self._rest) >= 4:
            (size,) = struct.unpack_from(">i", self._rest)
            if not 4 <= size <= _LARGEST:
                raise ValueError(f"a frame of {size} bytes")
            if len(self._rest) < 4 + size:
                break
            frames.append(bytes(self._rest[: 4 + size]))
            del self._rest[: 4 + size]
        return frames


def request_kind(frame: bytes) -> tuple[int, int]:
    """Return a request's kind and number. Raises ValueError for one that is too short."""
    if len(frame) < 12:
        raise ValueError("a request without a header")
    kind, _, number = struct.unpack_from(">hhi", frame, 4)
    return int(kind), int(number)


def answer_number(frame: bytes) -> int:
    """Return the number of the request that an answer is for."""
    (number,) = struct.unpack_from(">i", frame, 4)
    return int(number)


class Conversation:
    """Which request each answer of a connection is for, and the address that answers name."""

    def __init__(self, host: str, broker_port: int, own_port: int) -> None:
        self._theirs = host.encode() + struct.pack(">i", broker_port)
        self._own = host.encode() + struct.pack(">i", own_port)
        self._asked: dict[int, int] = {}
        self.requests: Counter[int] = Counter()
        """How many requests of each kind there were."""

    def asked(self, frame: bytes) -> int:
        """Take note of a request; return its kind."""
        kind, number = request_kind(frame)
        self._asked[number] = kind
        self.requests[kind] += 1
        return kind

    def answered(self, frame: bytes) -> tuple[int | None, bytes]:
        """Return the kind of request that an answer is for, and the answer with the proxy's
        address in place of the broker's. They are as long as each other, so nothing moves."""
        kind = self._asked.pop(answer_number(frame), None)
        if kind in _NAMES_BROKERS:
            return kind, frame.replace(self._theirs, self._own)
        return kind, frame
