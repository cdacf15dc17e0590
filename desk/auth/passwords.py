"""Passwords of local users (argon2id, RFC 9106, low memory), and limits on guessing them."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from desk.clock import Clock

MIN_CHARS = 12
MAX_CHARS = 256

_hasher = PasswordHasher()
# Each check takes 64 MiB and a core: sign-ins must not take the whole machine.
_at_once = threading.BoundedSemaphore(2)
_NOBODY = _hasher.hash("nobody has this password")


def hash_password(password: str) -> str:
    """Hash a password with argon2id. Raises ValueError unless it has ``MIN_CHARS`` to ``MAX_CHARS``
    characters."""
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise ValueError(f"a password has {MIN_CHARS} to {MAX_CHARS} characters")
    with _at_once:
        return _hasher.hash(password)


def is_password(hashed: str | None, password: str) -> bool:
    """Check a password against its hash. Without a hash it takes as long, so that response times do
    not show which accounts exist."""
    if len(password) > MAX_CHARS:
        return False
    with _at_once:
        try:
            return _hasher.verify(hashed or _NOBODY, password) and hashed is not None
        except (VerificationError, InvalidHashError):
            return False


_FREE = 5
_FREE_OF_ADDRESS = 20
_LONGEST_MS = 60_000
_FORGOTTEN_MS = 900_000
_REMEMBERED = 10_000  # names and addresses with failures
# Measured with 24 connections that guess and 25 users with right passwords elsewhere: with one
# queue for all addresses none of the users was let in, with two at a time for each all were.
_AT_ONCE = 8
_AT_ONCE_OF_ADDRESS = 2
_WAITING_OF_ADDRESS = 50
_LONGEST_WAIT_S = 60.0


class Attempts:
    """Slows down guessing. Counts failed sign-ins in this process. Safe from any thread.

    Failures are counted for each name from each address, and for each address over all names.
    Beyond ``_FREE`` (``_FREE_OF_ADDRESS``) the next attempt waits a second, then two, four, up to a
    minute. A name's count over all addresses would let anyone lock anyone out, so there is none.

    An attempt counts as a failure until its result is known, so parallel guesses gain nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str | None], _Failures] = OrderedDict()

    def begin(self, address: str, name: str) -> float:
        """Begin an attempt and return 0, or return the seconds to wait. Each attempt that was begun
        needs a call of ``end``."""
        now_ms = self._clock()
        host = _host(address)
        with self._lock:
            counts = [self._count((host, name), now_ms), self._count((host, None), now_ms)]
            wait_ms = max(each.until_ms for each in counts) - now_ms
            if wait_ms > 0:
                return wait_ms / 1000
            for count, free in zip(counts, (_FREE, _FREE_OF_ADDRESS), strict=True):
                count.add(now_ms, free)
        return 0.0

    def end(self, address: str, name: str, *, right: bool) -> None:
        """End an attempt. If the password was right, forget the failures of this name from this
        address. Failures with other names stay: the guesser may have an account."""
        host = _host(address)
        with self._lock:
            if right:
                self._failures.pop((host, name), None)
                of_address = self._failures.get((host, None))
                if of_address is not None:
                    # This attempt was counted when it began.
                    of_address.count -= 1
                    of_address.until_ms = 0

    def _count(self, key: tuple[str, str | None], now_ms: int) -> _Failures:
        found = self._failures.get(key)
        if found is None or now_ms - found.last_ms >= _FORGOTTEN_MS:
            found = self._failures[key] = _Failures()
        self._failures.move_to_end(key)
        # Bounded, or guesses with invented names would fill the memory.
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return found


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last_ms: int = 0
    until_ms: int = 0

    def add(self, now_ms: int, free: int) -> None:
        self.count += 1
        self.last_ms = now_ms
        over = self.count - free
        wait_ms = min(_LONGEST_MS, 1000 * 2 ** min(over - 1, 20)) if over > 0 else 0
        self.until_ms = now_ms + wait_ms


class SignInQueue:
    """Runs few password checks at a time: each takes a thread of the web server, 64 MiB and a core.

    Two run for one address, so that a client with many connections delays only itself. The others
    wait in order, without a thread. For the threads of one event loop.
    """

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(_AT_ONCE)
        self._hosts: dict[str, _Waiting] = {}

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[bool]:
        """Wait for a turn; yields False if too many requests from this address wait already, or if
        the wait takes too long."""
        host = _host(address)
        waiting = self._hosts.setdefault(host, _Waiting())
        if waiting.count >= _WAITING_OF_ADDRESS:
            yield False
            return
        waiting.count += 1
        try:
            try:
                async with asyncio.timeout(_LONGEST_WAIT_S):
                    await waiting.running.acquire()
            except TimeoutError:
                yield False
                return
            try:
                async with self._running:
                    yield True
            finally:
                waiting.running.release()
        finally:
            waiting.count -= 1
            if not waiting.count:
                del self._hosts[host]


@dataclass(slots=True)
class _Waiting:
    running: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_AT_ONCE_OF_ADDRESS)
    )
    count: int = 0


def _host(address: str) -> str:
    """Return the address, or its /64 for IPv6: one host can have every address in it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
