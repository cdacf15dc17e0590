"""Decisions that were published go to a web address too: in order, each at least once.

The rows are the outbox's; how far they were delivered is a counter of its own, so a receiver that
is slow or away holds nothing up but itself. A delivery that was made and not noted is made again
with the same id. One that is refused again and again is given up after a while, and the next one's
turn comes: an address that is gone for good must not fill the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from desk.clock import Clock
from desk.core.webhook import body, headers
from desk.errors import TryAgain
from desk.store import deliveries
from desk.store.database import Database

Post = Callable[[bytes, Mapping[str, str]], None]
"""Sends one request. Raises TryAgain for anything but a success."""

GIVE_UP_MS = 72 * 3_600_000
"""For how long after it was published a decision that is refused is sent again: a receiver that
breaks on a Friday evening still gets everything on Monday."""

_BATCH = 100
_log = structlog.get_logger("desk.webhook")


class WebhookSender:
    """Delivers what the outbox has published; one thread.

    ``name`` is the installation's: ids of deliveries begin with it.
    """

    def __init__(
        self,
        database: Database,
        post: Post,
        clock: Clock,
        *,
        name: str,
        key: bytes,
    ) -> None:
        self._database = database
        self._post = post
        self._clock = clock
        self._name = name
        self._key = key
        self._begun = False

    def run_once(self) -> int:
        """Deliver what waits, one batch at most; return how many. Raises TryAgain."""
        if not self._begun:
            with self._database.write() as tx:
                deliveries.begin(tx)
            self._begun = True
        with self._database.read() as tx:
            waiting = deliveries.waiting(tx, _BATCH)
        for row in waiting:
            content = body(row.value)
            sent_s = self._clock() // 1000
            delivery_id = f"{self._name}-{row.sequence}"
            try:
                self._post(content, headers(self._key, delivery_id, sent_s, content))
            except TryAgain as error:
                if self._clock() - row.published_ms < GIVE_UP_MS:
                    raise
                _log.error("webhook.given_up", delivery=delivery_id, reason=str(error))
            with self._database.write() as tx:
                deliveries.delivered(tx, row.sequence)
        return len(waiting)

    def stand_back(self) -> None:
        """Nothing is remembered from one turn to the next."""
