"""The outbox: each correction reaches Kafka exactly once, whatever is killed when.

Each turn has three transactions. In the database, rows that are due get sequence numbers. In
Kafka, those that are not known to be published are written in order, with the last number as a
mark. In the database again, they are marked as published. A kill between the last two leaves that
in doubt, and Kafka's mark settles it: after a start, and after any error, all rows up to the mark
are in Kafka and none beyond it, because starting a producer ends and fences the earlier one of the
same name.

Published decisions go to a web address too (``WebhookSender``): in order, each at least once. How
far they were delivered is a counter of its own, so a receiver that is slow or away holds nothing
up but itself. A delivery that was made and not noted is made again with the same id. One that is
refused again and again is given up: an address that is gone for good must not fill the database.
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
"""How far the clocks of a broker and of a database's client may be apart."""

GIVE_UP_MS = 72 * 3_600_000
"""For how long after it was published a decision that is refused is sent again: a receiver that
breaks on a Friday evening still gets everything on Monday."""

_BATCH = 100

_TIMEOUT_S = 10.0  # for one request

_EVENTS: Mapping[outbox.Kind, str] = {
    "correction": "decision.published",
    "retraction": "decision.retracted",
}

_PREFIX = "whsec_"

Post = Callable[[bytes, Mapping[str, str]], None]
"""Sends one request. Raises TryAgain for anything but a success."""


class OutboxPublisher:
    """Publishes corrections to Kafka; one thread."""

    def __init__(
        self, database: Database, sink: CorrectionSink, clock: Clock, *, batch: int = 200
    ) -> None:
        self._database = database
        self._sink = sink
        self._clock = clock
        self._batch = batch
        self._started = False

    def run_once(self) -> int:
        """Publish what is due, one batch at most; return how many.

        Raises TryAgain: the next call settles what became of this one. Raises DeskStopped.
        """
        if not self._started:
            self._settle()
        # Until this turn has come to its end: after any error the next one settles first.
        self._started = False
        with self._database.write() as tx:
            outbox.give_sequence(tx, self._clock(), self._batch)
            records = [Outgoing(*row) for row in outbox.pending(tx, self._batch)]
        if records:
            self._sink.publish(records)
            with self._database.write() as tx:
                outbox.published(tx, records[-1].sequence, self._clock())
            _log.info("outbox.published", records=len(records), sequence=records[-1].sequence)
        self._started = True
        return len(records)

    def reset(self) -> None:
        """Somebody else publishes now: begin again when it is this one's turn again."""
        self._started = False

    def _settle(self) -> None:
        """Begin, and note what was published without our knowing."""
        mark = self._sink.start()
        with self._database.read() as tx:
            since_ms = outbox.in_doubt_since_ms(tx)
        if mark is None and since_ms is not None:
            # Kafka forgets a group's offsets some days after their last commit, or with the topic.
            mark = self._sink.last_written(since_ms - _SKEW_MS)
        if mark is not None:
            with self._database.write() as tx:
                settled = outbox.published(tx, mark, self._clock())
            if settled:
                _log.info("outbox.settled", records=settled, sequence=mark)
        self._started = True


class WebhookSender:
    """Delivers what the outbox has published; one thread.

    ``name`` is the installation's; delivery ids begin with it.
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

    def reset(self) -> None:
        """Nothing is remembered from one turn to the next."""


def make_post(url: str, *, ca_file: Path | None = None, timeout_s: float = _TIMEOUT_S) -> Post:
    """Return a function that posts a body with headers to ``url`` and raises TryAgain for anything
    but a success. Neither redirects nor the environment's proxies are followed. Raises
    SettingsError for an address or a file that cannot be used."""
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
                return  # what it says is of no interest; that it is 2xx is
        except urllib.error.HTTPError as error:
            error.close()
            raise TryAgain(f"the webhook's receiver answers {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = type(reason).__name__
            raise TryAgain(f"the webhook's receiver cannot be reached: {why}") from None

    return post


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is signed for one address goes to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Take the redirect for the answer."""


def read_key(secret: str) -> bytes:
    """Return the key of a secret: the base64 after ``whsec_``, else its UTF-8. Raises
    SettingsError for one that anybody could guess."""
    try:
        key = (
            base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
            if secret.startswith(_PREFIX)
            else secret.encode()
        )
    except ValueError:
        raise SettingsError(f"webhook.secret: what follows {_PREFIX} is not base64") from None
    if len(key) < 16:
        raise SettingsError("webhook.secret has fewer than 16 bytes: use a longer one")
    return key


def body(kind: outbox.Kind, record: bytes) -> bytes:
    """Return the request's body about a record of the topic (its JSON)."""
    return b'{"type":"' + _EVENTS[kind].encode() + b'","data":' + record + b"}"


def headers(key: bytes, delivery_id: str, sent_s: int, content: bytes) -> dict[str, str]:
    """Return the headers id, time (Unix seconds) and signature, as in
    https://www.standardwebhooks.com: HMAC-SHA256 over "id.time.body"."""
    signed = f"{delivery_id}.{sent_s}.".encode() + content
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")
    return {
        "Content-Type": "application/json",
        "Webhook-Id": delivery_id,
        "Webhook-Timestamp": str(sent_s),
        "Webhook-Signature": f"v1,{signature}",
    }
