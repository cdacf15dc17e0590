"""The outbox: each correction and retraction reaches Kafka exactly once, whatever is killed.

In each iteration, due rows get sequence numbers in one database transaction. Rows that are not
known to be published are written to Kafka in order, with the last number as a mark, in one Kafka
transaction. Then the database is updated. A kill between the last two steps leaves a doubt, which
the mark settles: after a start, and after any error, everything up to the mark is in Kafka and
nothing beyond it, because starting fences every earlier writer of this name.

``WebhookSender`` posts published records to a web address too, in order, each at least once. Its
progress is a counter of its own, so a slow receiver delays only itself. A delivery that was made
and not recorded is made again with the same id. A delivery that keeps being refused is given up,
so that an address that no longer exists does not fill the database.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from desk.clock import Clock
from desk.errors import SettingsError, TryAgain
from desk.store import outbox
from desk.store.database import Database
from desk.stream.port import CorrectionSink, Outgoing

_log = structlog.get_logger("desk.outbox")

_SKEW_MS = 3_600_000
"""The largest expected difference between the clocks of the broker and the desk."""

GIVE_UP_MS = 72 * 3_600_000
"""A refused record is sent again for so long after it was published: a receiver that breaks on a
Friday evening still gets everything on Monday."""

_BATCH = 100

_TIMEOUT_S = 10.0  # for one request

_EVENTS: Mapping[outbox.Kind, str] = {
    "correction": "decision.published",
    "retraction": "decision.retracted",
}

_PREFIX = "whsec_"

Post = Callable[[bytes, Mapping[str, str]], None]
"""Sends one request. Raises TryAgain unless it succeeds."""


class OutboxPublisher:
    """Publishes what is in the outbox; one thread."""

    def __init__(
        self, database: Database, sink: CorrectionSink, clock: Clock, *, batch: int = 200
    ) -> None:
        self._database = database
        self._sink = sink
        self._clock = clock
        self._batch = batch
        self._started = False

    def run_once(self) -> int:
        """Publish due records, one batch at most; return how many.

        Raises TryAgain: the next call finds out whether this one wrote them. Raises DeskStopped.
        """
        if not self._started:
            self._settle()
        self._started = False  # until this iteration has succeeded
        with self._database.write() as tx:
            outbox.give_sequence(tx, self._clock(), self._batch)
            rows = outbox.pending(tx, self._batch)
        if rows:
            self._sink.publish([Outgoing(row.sequence, row.key, row.value) for row in rows])
            with self._database.write() as tx:
                outbox.published(tx, rows[-1].sequence, self._clock())
            _log.info("outbox.published", records=len(rows), sequence=rows[-1].sequence)
        self._started = True
        return len(rows)

    def stand_back(self) -> None:
        """Another replica publishes now. Start again before the next iteration."""
        self._started = False

    def _settle(self) -> None:
        """Start the sink, and record what was published without being recorded."""
        mark = self._sink.start()
        with self._database.read() as tx:
            since_ms = outbox.in_doubt_since_ms(tx)
        if mark is None and since_ms is not None:
            # Kafka deletes a group's offsets some days after their last commit, or with the topic.
            mark = self._sink.last_written(since_ms - _SKEW_MS)
        if mark is not None:
            with self._database.write() as tx:
                settled = outbox.published(tx, mark, self._clock())
            if settled:
                _log.info("outbox.settled", records=settled, sequence=mark)
        self._started = True


class WebhookSender:
    """Delivers the records that the outbox has published; one thread.

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
        """Deliver waiting records, one batch at most; return how many. Raises TryAgain."""
        if not self._begun:
            with self._database.write() as tx:
                outbox.begin_delivering(tx)
            self._begun = True
        with self._database.read() as tx:
            waiting = outbox.to_deliver(tx, _BATCH)
        for row in waiting:
            content = body(row.kind, row.value)
            sent_s = self._clock() // 1000
            delivery_id = f"{self._name}-{row.sequence}"
            try:
                self._post(content, headers(self._key, delivery_id, sent_s, content))
            except TryAgain as error:
                if self._clock() - row.published_ms < GIVE_UP_MS:
                    raise
                _log.error("webhook.given_up", delivery=delivery_id, reason=str(error))
            with self._database.write() as tx:
                outbox.delivered(tx, row.sequence)
        return len(waiting)

    def stand_back(self) -> None:
        """Nothing to do: there is no state between iterations."""


def make_post(url: str, *, ca_file: Path | None = None, timeout_s: float = _TIMEOUT_S) -> Post:
    """Return a function that posts a body with headers to ``url``, and raises TryAgain unless the
    answer is 2xx. Redirects and the environment's proxies are not followed. Raises SettingsError
    for an address or a file that cannot be used."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise SettingsError("webhook.url: write http(s)://HOST/PATH, without user and password")
    try:
        tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        raise SettingsError(f"webhook.ca_file: {ca_file} cannot be used: {error}") from error
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls), _NoRedirect()
    )

    def post(body: bytes, headers: Mapping[str, str]) -> None:
        request = urllib.request.Request(url, body, dict(headers), method="POST")  # noqa: S310
        try:
            with opener.open(request, timeout=timeout_s):
                return  # only the status matters
        except urllib.error.HTTPError as error:
            error.close()
            raise TryAgain(f"the webhook's receiver answers {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = type(reason).__name__
            raise TryAgain(f"the webhook's receiver cannot be reached: {why}") from None

    return post


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a body signed for one address is not sent to another."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Treat the redirect as the answer."""


def read_key(secret: str) -> bytes:
    """Return the key of a secret: the base64 after ``whsec_``, else its UTF-8. Raises
    SettingsError for a key that is too short."""
    try:
        key = (
            base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
            if secret.startswith(_PREFIX)
            else secret.encode()
        )
    except ValueError:
        raise SettingsError(f"webhook.secret: what follows {_PREFIX} is not base64") from None
    if len(key) < 16:
        raise SettingsError("webhook.secret has fewer than 16 bytes: anybody could guess it")
    return key


def body(kind: outbox.Kind, record: bytes) -> bytes:
    """Return the request's body about a record of the topic (its JSON)."""
    return b'{"type":"' + _EVENTS[kind].encode() + b'","data":' + record + b"}"


def headers(key: bytes, delivery_id: str, sent_s: int, content: bytes) -> dict[str, str]:
    """Return the request's headers: id, time (Unix seconds) and signature, by
    https://www.standardwebhooks.com (HMAC-SHA256 over "id.time.body")."""
    signed = f"{delivery_id}.{sent_s}.".encode() + content
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")
    return {
        "Content-Type": "application/json",
        "Webhook-Id": delivery_id,
        "Webhook-Timestamp": str(sent_s),
        "Webhook-Signature": f"v1,{signature}",
    }
