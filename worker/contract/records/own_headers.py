"""Headers that a worker has put on a record, which do not belong to it when it is sent again."""

from __future__ import annotations

from worker.contract.records.dead_letter import CONNECTOR, DEAD_LETTER_HEADERS
from worker.contract.records.identity import Headers
from worker.contract.records.replay import REPLAY_HEADERS
from worker.contract.records.retry import RETRY_HEADERS
from worker.contract.records.shadow import MAIN_ADAPTER_DIGEST, MAIN_LABEL

_CLERK = frozenset(
    {name for name in DEAD_LETTER_HEADERS if name.startswith("clerk.")}
    | {MAIN_LABEL, MAIN_ADAPTER_DIGEST}
    | REPLAY_HEADERS
    | RETRY_HEADERS
)
_CONNECT = frozenset(DEAD_LETTER_HEADERS) - _CLERK


def without_worker_headers(headers: Headers) -> Headers:
    """Return the sender's own headers, of a record that a worker has written somewhere before.

    Kafka Connect's headers are left out where a worker has written them, and are the sender's own
    where another connector has.
    """
    if not headers:
        return headers
    ours = _CLERK | _CONNECT if CONNECTOR in headers else _CLERK
    return tuple(header for header in headers if header[0] not in ours)
