"""A stable share of traffic, by hash: a key in a share stays in it when the share grows."""

from __future__ import annotations

import hashlib

from worker.records.types import Record

_SPACE = 1 << 64


def place_of(record: Record, salt: str) -> float:
    """Return the record's place in [0, 1) by its key, or its id where it has none.

    The same key has the same place under the same ``salt`` on every worker; under another salt
    it has another, so that two shares are drawn independently.
    """
    unit = record.id.encode() if record.key is None else record.key
    # Length first: no salt and key can be another salt and key.
    seed = f"{len(salt)}:{salt}".encode()
    digest = hashlib.blake2b(seed + unit, digest_size=8).digest()
    return int.from_bytes(digest, "big") / _SPACE
