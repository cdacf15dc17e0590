"""Passwords of local users: argon2id, with the library's parameters (RFC 9106, low memory)."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

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
