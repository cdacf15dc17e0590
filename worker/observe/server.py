"""A small HTTP server for health checks and scrapes, on its own threads."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

import structlog

from worker.errors import SettingsError

_log = structlog.get_logger("worker.http")

MAX_REQUESTS = 16
"""The most requests served at the same time."""

_REQUEST_S = 5.0  # timeout for each read from or write to a client


@dataclass(frozen=True, slots=True)
class Page:
    """A response."""

    body: bytes
    content_type: str
    status: int = 200


Pages = Mapping[str, Callable[[], Page]]
"""The function for each path; called from any thread."""


class HttpServer:
    """Serves GET and HEAD from construction to ``close``.

    Slow clients cannot block the probes: when MAX_REQUESTS are being served, the oldest one is cut
    off. Raises SettingsError if it cannot listen.
    """

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        try:
            family, *_, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _Server(family, address[:2], pages)
        except OSError as error:
            raise SettingsError(
                f"http.host={host}, http.port={port}: cannot listen ({error.strerror}): choose "
                "another port, or http.port=0 for any free one"
            ) from error
        self.port: int = self._server.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            name="http",
            kwargs={"poll_interval": 0.1},  # shutdown() waits for one
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening and cut off current requests."""
        self._server.shutdown()
        self._server.server_close()
        self._server.cut_off_all()
        self._thread.join()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    # Not http.server.HTTPServer: it looks up the host's name in DNS, which may take seconds.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, family: int, address: Any, pages: Pages) -> None:
        self.address_family = family
        self.pages = pages
        self._lock = threading.Lock()
        self._served: dict[socket.socket, None] = {}  # oldest first
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        # Cutting off the oldest, rather than refusing the newest, lets a probe through while slow
        # clients hold every place.
        with self._lock:
            oldest = next(iter(self._served)) if len(self._served) >= MAX_REQUESTS else None
            if oldest is not None:
                del self._served[oldest]
                _cut_off(oldest)
            self._served[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._served.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error, unless the client closed the connection."""
        del request, client_address
        if not isinstance(sys.exception(), OSError):
            _log.exception("http.request_failed")

    def cut_off_all(self) -> None:
        with self._lock:
            for request in self._served:
                _cut_off(request)


def _cut_off(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:  # already closed
        return


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        # A query is ignored: some scrapers and load balancers add one.
        path = urlsplit(self.path).path
        make = self.server.pages.get(path)
        if make is None:
            known = ", ".join(self.server.pages)
            page = Page(f"not found; try {known}\n".encode(), "text/plain; charset=utf-8", 404)
        else:
            try:
                page = make()
            except Exception:  # noqa: BLE001 - reported to client and log; the worker continues
                _log.exception("http.page_failed", path=path)
                page = Page(b"internal error; see the worker's log\n", "text/plain", 500)
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(page.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a malformed request in one plain line."""
        del explain
        body = f"{message or HTTPStatus(code).phrase}\n".encode()
        # http.server answers an unknown method with 501; 405 is the correct status.
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else code
        self.send_response(status)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Name the program, not its Python."""
        return "clerk-worker"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: probes come every few seconds."""
