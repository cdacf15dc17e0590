"""Which results are looked at whatever the machine thinks of them, and which twice.

Drawn by a hash of the result id: the same result is drawn or not however often it is read, nobody
can choose, and nothing that is known of the message has a part in it.
"""

from __future__ import annotations

import hashlib


def position(purpose: str, seed: str, result_id: str) -> float:
    """Return a number in [0, 1) that is uniform over result ids and fixed for each.

    ``purpose`` makes two draws on one id independent; ``seed`` is the installation's own.
    """
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{result_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_drawn(purpose: str, seed: str, result_id: str, share: float) -> bool:
    """Tell whether a result belongs to the sample of this share; a larger share holds a smaller."""
    return position(purpose, seed, result_id) < share
