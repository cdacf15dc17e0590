"""Headers that a worker has put on a record, which do not belong to it when it is sent again."""

from __future__ import annotations

from worker.contract.records.dead_letter import DEAD_LETTER_HEADERS
from worker.contract.records.identity import Headers
from worker.contract.records.replay import REPLAY_HEADERS
from worker.contract.records.retry import RETRY_HEADERS
from worker.contract.records.shadow import MAIN_ADAPTER_DIGEST, MAIN_LABEL

_OURS = DEAD_LETTER_HEADERS | {MAIN_LABEL, MAIN_ADAPTER_DIGEST} | REPLAY_HEADERS | RETRY_HEADERS


def without_worker_headers(headers: Headers) -> Headers:
    """Return the sender's own headers, of a record that a worker has written somewhere before."""
    if not any(name in _OURS for name, _ in headers):
        return headers  # most records: no copy
    return tuple(header for header in headers if header[0] not in _OURS)
