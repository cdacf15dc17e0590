"""A TCP proxy between one worker and its broker, whose link can be slow, half-open or cut.

The broker's answers name the proxy as the broker, so all of the worker's connections go through it.
It runs in its own thread; its methods are for other threads.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from worker.demo.kafka_files import HOST

# As much of Kafka's frames as a proxy needs: requests by their kind, answers by their request,
# and the broker's address in answers that name it. Pure.
#
# A frame is a length (int32) and that many bytes. A request begins with its kind (int16), its
# version (int16) and a number (int32) with which its answer begins, in every version of the
# protocol.


METADATA = 3
OFFSET_COMMIT = 8
FIND_COORDINATOR = 10
INIT_PRODUCER_ID = 22
END_TXN = 26
DESCRIBE_CLUSTER = 60

# Answers that contain addresses of brokers, each a string and then a port (int32).
_NAMES_BROKERS = {METADATA, FIND_COORDINATOR, DESCRIBE_CLUSTER}
_LARGEST = 128 * 1024 * 1024


class FrameSplitter:
    """Splits a byte stream into complete frames, each with its length in front."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add bytes; return the complete frames. Raises ValueError for an invalid length."""
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
    """A request's kind and number. Raises ValueError if it is too short."""
    if len(frame) < 12:
        raise ValueError("a request without a header")
    kind, _, number = struct.unpack_from(">hhi", frame, 4)
    return int(kind), int(number)


def answer_number(frame: bytes) -> int:
    """The number of the request that an answer belongs to."""
    (number,) = struct.unpack_from(">i", frame, 4)
    return int(number)


class Conversation:
    """Matches answers to requests on a connection, and replaces the broker's address in answers."""

    def __init__(self, host: str, broker_port: int, own_port: int) -> None:
        self._theirs = host.encode() + struct.pack(">i", broker_port)
        self._own = host.encode() + struct.pack(">i", own_port)
        self._asked: dict[int, int] = {}
        self.requests: Counter[int] = Counter()
        """How many requests of each kind there were."""

    def asked(self, frame: bytes) -> int:
        """Record a request; return its kind."""
        kind, number = request_kind(frame)
        self._asked[number] = kind
        self.requests[kind] += 1
        return kind

    def answered(self, frame: bytes) -> tuple[int | None, bytes]:
        """Return the kind of the request, and the answer with the proxy's address in place of
        the broker's. Both have the same length, so nothing moves."""
        kind = self._asked.pop(answer_number(frame), None)
        if kind in _NAMES_BROKERS:
            return kind, frame.replace(self._theirs, self._own)
        return kind, frame


Link = Literal["whole", "slow", "half_open", "cut"]

_CHUNK_BYTES = 65_536


@dataclass
class LinkCounts:
    """Counts since the proxy was created."""

    connections: int = 0
    cut: int = 0
    """Connections cut, and connections refused while the link was cut."""
    swallowed_bytes: int = 0
    dropped: int = 0
    """Answers that were never delivered."""


class Proxy:
    """Listens on a loopback port and forwards to the broker's."""

    def __init__(self, broker_port: int, host: str = HOST) -> None:
        self._host = host
        self._broker_port = broker_port
        self.counts = LinkCounts()
        self.requests: Counter[int] = Counter()
        """How many requests of each kind have passed."""
        self.dropped_at: float | None = None
        """When an answer was last dropped (monotonic)."""
        self._link: Link = "whole"
        self._delay_s = 0.0
        self._to_drop: int | None = None
        self._to_hold: tuple[int, float] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="proxy")
        self._thread.start()
        self.port = started.result(timeout=30)

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    def set_link(self, link: Link, delay_s: float = 0.0) -> None:
        """Set the link's state. A half-open link has lost bytes, so it always ends by cutting
        its connections."""
        self._call(lambda: self._set_link(link, delay_s))

    def drop_answer(self, kind: int) -> None:
        """Withhold the next answer to a request of this kind, and cut its connection."""
        self._call(lambda: setattr(self, "_to_drop", kind))

    def hold_answer(self, kind: int, seconds: float) -> None:
        """Delay the next answer to a request of this kind, and everything behind it."""
        self._call(lambda: setattr(self, "_to_hold", (kind, seconds)))

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(30)

    def _call(self, action: Callable[[], None]) -> None:
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(30), "the proxy is stuck"

    def _set_link(self, link: Link, delay_s: float) -> None:
        if link == "cut" or (self._link == "half_open" and link != "half_open"):
            self._cut_all()
        self._link, self._delay_s = link, delay_s

    def _cut_all(self) -> None:
        for writer in tuple(self._writers):
            self.counts.cut += 1
            writer.transport.abort()

    def _run(self, started: Future[int]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(
                asyncio.start_server(self._accept, self._host, 0)
            )
            started.set_result(server.sockets[0].getsockname()[1])
            self._loop.run_forever()
            server.close()
            for writer in tuple(self._writers):
                writer.transport.abort()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        if self._link == "cut":
            self.counts.cut += 1
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(self._host, self._broker_port)
        except OSError:  # the broker is away
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        talk = Conversation(self._host, self._broker_port, self.port)
        try:
            await asyncio.gather(
                self._pass_requests(reader, up_writer, talk),
                self._pass_answers(up_reader, writer, talk),
            )
        finally:
            for each in (writer, up_writer):
                self._writers.discard(each)
                each.transport.abort()

    async def _pass_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: Conversation
    ) -> None:
        splitter = FrameSplitter()
        while chunk := await _read(reader):
            frames = splitter.feed(chunk)
            if not await self._may_pass(chunk):
                continue
            for frame in frames:
                self.requests[talk.asked(frame)] += 1
            writer.write(chunk)
            await _drain(writer)
        writer.transport.abort()

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: Conversation
    ) -> None:
        splitter = FrameSplitter()
        while chunk := await _read(reader):
            for whole in splitter.feed(chunk):
                kind, frame = talk.answered(whole)
                if kind is not None and kind == self._to_drop:
                    self._to_drop = None
                    self.counts.dropped += 1
                    self.dropped_at = time.monotonic()
                    writer.transport.abort()
                    return
                if self._to_hold is not None and kind == self._to_hold[0]:
                    (_, seconds), self._to_hold = self._to_hold, None
                    await asyncio.sleep(seconds)
                if await self._may_pass(frame):
                    writer.write(frame)
            await _drain(writer)
        writer.transport.abort()

    async def _may_pass(self, chunk: bytes) -> bool:
        """Wait if the link is slow; return whether the bytes get through."""
        if self._link == "slow":
            await asyncio.sleep(self._delay_s)
        if self._link == "half_open":
            self.counts.swallowed_bytes += len(chunk)
            return False
        return True


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return what has arrived; empty once the other side is gone."""
    try:
        return await reader.read(_CHUNK_BYTES)
    except OSError:
        return b""


async def _drain(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # it is gone: the reading side will notice
        await writer.drain()
