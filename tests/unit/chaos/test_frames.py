"""Kafka's frames in a stream of bytes, and whose answer is whose."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.frames import (
    END_TXN,
    METADATA,
    Conversation,
    FrameSplitter,
    answer_number,
    request_kind,
)

HOST, BROKER_PORT, OWN_PORT = "127.0.0.1", 19_092, 40_001


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def request(kind: int, number: int, rest: bytes = b"") -> bytes:
    return frame(struct.pack(">hhi", kind, 3, number) + rest)


def answer(number: int, rest: bytes = b"") -> bytes:
    return frame(struct.pack(">i", number) + rest)


@given(st.lists(st.binary(min_size=4, max_size=40), max_size=8), st.integers(1, 30))
def test_frames_are_found_however_the_bytes_arrive(bodies: list[bytes], step: int) -> None:
    """Each whole, in order, its length in front; nothing is left over."""
    stream = b"".join(map(frame, bodies))
    splitter = FrameSplitter()
    found = []
    for begin in range(0, len(stream), step):
        found += splitter.feed(stream[begin : begin + step])
    assert found == [frame(body) for body in bodies]


@pytest.mark.parametrize("size", [-1, 0, 3, 1 << 30])
def test_what_is_no_frame_is_refused(size: int) -> None:
    """Another protocol, or a stream out of step."""
    with pytest.raises(ValueError, match="a frame of"):
        FrameSplitter().feed(struct.pack(">i", size))


def test_a_request_names_its_kind_and_number() -> None:
    """And an answer the number alone."""
    assert request_kind(request(END_TXN, 77)) == (END_TXN, 77)
    assert answer_number(answer(77)) == 77
    with pytest.raises(ValueError, match="without a header"):
        request_kind(frame(b"1234"))


def test_answers_are_told_by_their_requests() -> None:
    """In any order, each once; one that nobody asked for has no kind."""
    talk = Conversation(HOST, BROKER_PORT, OWN_PORT)
    talk.asked(request(METADATA, 1))
    talk.asked(request(END_TXN, 2))
    assert talk.answered(answer(2))[0] == END_TXN
    assert talk.answered(answer(1))[0] == METADATA
    assert talk.answered(answer(1))[0] is None
    assert talk.requests == {METADATA: 1, END_TXN: 1}


def test_the_brokers_address_becomes_the_proxys() -> None:
    """Only in answers that name brokers: elsewhere the same bytes may be a customer's."""
    talk = Conversation(HOST, BROKER_PORT, OWN_PORT)
    theirs = HOST.encode() + struct.pack(">i", BROKER_PORT)
    own = HOST.encode() + struct.pack(">i", OWN_PORT)
    talk.asked(request(METADATA, 1))
    talk.asked(request(1, 2))
    assert talk.answered(answer(1, b"a" + theirs + b"b"))[1] == answer(1, b"a" + own + b"b")
    assert talk.answered(answer(2, theirs))[1] == answer(2, theirs)
