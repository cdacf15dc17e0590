"""The HTTP server for probes and scrapes."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
from structlog.testing import capture_logs

from worker.errors import SettingsError
from worker.observe.server import MAX_REQUESTS, HttpServer, Page

pytestmark = pytest.mark.slow

Serve = Callable[..., HttpServer]
PAGES = {"/livez": lambda: Page(b'{"ok": true}\n', "application/json")}


def ask(server: HttpServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@contextmanager
def half_open(server: HttpServer, sent: bytes = b"GET /livez HT") -> Iterator[socket.socket]:
    """A client that begins a request and never finishes it."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as client:
        client.sendall(sent)
        yield client


def test_a_page_is_answered(serve: Serve) -> None:
    status, headers, body = ask(serve(PAGES), "/livez?verbose=1")
    assert (status, body) == (200, b'{"ok": true}\n')
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == str(len(body))
    assert headers["Server"] == "clerk-worker"


def test_other_paths_are_not_found_and_the_answer_says_which_are(serve: Serve) -> None:
    for path in ("/", "/livez/", "/livez/../etc/passwd", "/health"):
        status, _, body = ask(serve(PAGES), path)
        assert status == 404
        assert b"/livez" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_refused(serve: Serve, method: str) -> None:
    status, headers, _ = ask(serve(PAGES), "/livez", method)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


def test_malformed_requests_are_refused_and_the_next_is_answered(serve: Serve) -> None:
    server = serve(PAGES)
    with half_open(server, b"\x16\x03\x01\x02\x00\r\n\r\n") as client:
        client.recv(1000)
    with half_open(server, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n") as client:
        assert b" 414 " in client.recv(1000)
    assert ask(server, "/livez")[0] == 200


def test_a_page_that_fails_is_an_error_and_the_next_is_answered(serve: Serve) -> None:

    def fail() -> Page:
        raise RuntimeError("my card is 4111")

    server = serve({**PAGES, "/metrics": fail})
    with capture_logs() as logs:
        status, _, body = ask(server, "/metrics")
    assert status == 500
    assert b"4111" not in body
    assert [line["event"] for line in logs] == ["http.page_failed"]
    assert ask(server, "/livez")[0] == 200


def test_idle_clients_do_not_block_others(serve: Serve) -> None:
    """Five times as many idle clients as places; a probe is still answered at once."""
    server = serve(PAGES)
    with ExitStack() as stack:
        for _ in range(5 * MAX_REQUESTS):
            stack.enter_context(half_open(server))
        started = time.monotonic()
        assert ask(server, "/livez")[0] == 200
        assert time.monotonic() - started < 1.0
        serving = [thread for thread in threading.enumerate() if "process_request" in thread.name]
        assert len(serving) <= 2 * MAX_REQUESTS


def test_closing_is_quick_whatever_clients_do(serve: Serve) -> None:
    server = serve(PAGES)
    with half_open(server):
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < 2.0
        assert serve(PAGES, server.port).port == server.port


def test_a_port_in_use_is_one_line_that_says_what_to_do(serve: Serve) -> None:
    taken = serve(PAGES).port
    with pytest.raises(
        SettingsError, match=rf"http\.port={taken}: .*in use.*http\.port=0"
    ) as error:
        serve(PAGES, taken)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
