"""The web server: its sockets, and the limits on what a connection may take before a page is found.

The pages and ``/metrics`` have one server and two ports, so that a firewall can tell them apart.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from desk.auth.provider import Provider
from desk.errors import SettingsError
from desk.service.context import Desk
from desk.web.application import build_application
from desk.web.visit import WebOptions

_GRACE_S = 10

HEADERS_S = 10.0
"""Time for a request's headers to arrive, in seconds."""

MAX_CONNECTIONS = 500
"""Open connections at a time: half of the 1,024 file descriptors that a process usually has. The
database, Kafka and files need the others."""


@contextmanager
def serve(desk: Desk, options: WebOptions, provider: Provider | None = None) -> Iterator[str]:
    """Serve the pages until the end; yields their address. Raises SettingsError if a port cannot be
    listened on."""
    pages = _listen(options.host, options.port, "web.port")
    try:
        metrics = _listen(options.host, options.metrics_port, "web.metrics_port")
    except SettingsError:
        pages.close()
        raise
    # With port 0 the system chooses it, and OwnPort compares with the one that it chose.
    options = replace(options, metrics_port=metrics.getsockname()[1])
    config = uvicorn.Config(
        build_application(desk, options, provider),
        http=BoundedConnection,
        log_config=None,
        access_log=False,  # addresses of pages hold what people searched for
        server_header=False,
        proxy_headers=False,  # desk.auth decides which headers are believed
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=32_768,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [pages, metrics]}, name="web", daemon=True
    )
    thread.start()
    try:
        host = f"[{options.host}]" if ":" in options.host else options.host
        yield f"http://{host}:{pages.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_GRACE_S + 5)
        for each in (pages, metrics):
            each.close()


def _listen(host: str, port: int, setting: str) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((address[0], port), family=family, backlog=512)
    except OSError as error:
        raise SettingsError(
            f"web.host and {setting}: {host}:{port} cannot be listened on: {error.strerror}"
        ) from error


# Not the loop's time, which may be the same for connections that arrive together.
_numbers = count()


class BoundedConnection(H11Protocol):
    """Closes a connection whose request headers are not complete after ``HEADERS_S``, and the
    oldest idle one if there are more than ``MAX_CONNECTIONS``.

    Uvicorn limits only the pause between two requests. Clients that connect and send a byte now and
    then (slowloris) would otherwise hold every file descriptor of the process.
    """

    _deadline: asyncio.TimerHandle | None = None
    _number = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for the connection, and start the time of its first request."""
        super().connection_made(transport)
        self._number = next(_numbers)
        if len(self.connections) > MAX_CONNECTIONS:
            # Not uvicorn's limit_concurrency: it answers 503 and keeps the connection open, and to
            # the kubelet's probes too, so that some hundred idle clients would restart the desk.
            others = [each for each in self.connections if isinstance(each, BoundedConnection)]
            idle = (each for each in others if each is not self and each.is_idle)
            oldest = min(idle, key=lambda each: each._number, default=self)
            # connection_lost comes later: of connections that arrive together, all but one would
            # find the same oldest one and stay.
            self.connections.discard(oldest)
            oldest.transport.abort()
        self._expect_headers()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being handled."""
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the time when the headers are complete, start it with those of the next request."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._deadline is None:
            self._expect_headers()

    def _expect_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_S, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
