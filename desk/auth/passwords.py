"""Passwords of local users (argon2id, RFC 9106, low memory), and slowing down who guesses them."""

from __future__ import annotations

import threading
from collections import OrderedDict

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from desk.clock import Clock

MIN_CHARS = 12
MAX_CHARS = 256

_hasher = PasswordHasher()
# Each check takes 64 MiB and a core: a crowd at the door must not take the whole machine.
_at_once = threading.BoundedSemaphore(2)
_NOBODY = _hasher.hash("nobody has this password")


def hash_password(password: str) -> str:
    """Return what is kept of a password. Raises ValueError for one that is too short or too long
    (``MIN_CHARS``, ``MAX_CHARS``)."""
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise ValueError(f"a password has {MIN_CHARS} to {MAX_CHARS} characters")
    with _at_once:
        return _hasher.hash(password)


def is_password(hashed: str | None, password: str) -> bool:
    """Tell whether this is the password. Where there is none it takes as long, so that nobody can
    tell from the time who works here."""
    if len(password) > MAX_CHARS:
        return False
    with _at_once:
        try:
            return _hasher.verify(hashed or _NOBODY, password) and hashed is not None
        except (VerificationError, InvalidHashError):
            return False


_FREE = 5
_LONGEST_MS = 60_000
_REMEMBERED = 10_000
_AT_ONCE = 8


class Attempts:
    """Counts failures by name, in this process. Safe from any thread.

    Not by address: behind a proxy everybody has one, and anyone who guesses would lock all out.

    After ``_FREE`` failures the next attempt has to wait a second, then two, four, up to a
    minute; a success by that name begins again. An attempt counts as a failure until it is known
    to be none, so that many at once gain nothing. ``_AT_ONCE`` are checked at a time, whatever
    their names: each takes one of the threads that pages are made on.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._checked = 0

    def begin(self, name: str) -> float:
        """Begin an attempt and return 0, or return for how many seconds to wait. ``end`` goes with
        each that was begun."""
        now_ms = self._clock()
        with self._lock:
            count, until_ms = self._failures.get(name, (0, 0))
            if until_ms > now_ms:
                return (until_ms - now_ms) / 1000
            if self._checked >= _AT_ONCE:
                return 1.0
            self._checked += 1
            self._note(name, count + 1, now_ms)
        return 0.0

    def end(self, name: str, *, right: bool) -> None:
        """End an attempt; one that was right makes its name's failures forgotten."""
        with self._lock:
            self._checked -= 1
            if right:
                self._failures.pop(name, None)

    def _note(self, name: str, count: int, now_ms: int) -> None:
        over = max(0, count - _FREE)
        wait_ms = min(_LONGEST_MS, 1000 * 2 ** min(over - 1, 20)) if over else 0
        self._failures[name] = (count, now_ms + wait_ms)
        self._failures.move_to_end(name)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
