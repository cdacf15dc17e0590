"""The proxy on real sockets, before a server that echoes a request's number: no Kafka."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from tests.chaos.frames import END_TXN, METADATA
from tests.chaos.proxy import Proxy
from tests.unit.chaos.test_frames import answer, request

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"


class Echo(socketserver.BaseRequestHandler):
    """Answers each request by its number and the server's address."""

    def handle(self) -> None:
        _, port = cast("tuple[str, int]", self.server.server_address)
        file = self.request.makefile("rb")
        while head := file.read(4):
            body = file.read(struct.unpack(">i", head)[0])
            number = struct.unpack_from(">i", body, 4)[0]
            self.request.sendall(answer(number, HOST.encode() + struct.pack(">i", port)))


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer((HOST, 0), Echo) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        made = Proxy(server.server_address[1])
        yield made
        made.close()
        server.shutdown()
        thread.join()


def connect(proxy: Proxy, timeout_s: float = 5.0) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=timeout_s)


def ask(link: socket.socket, kind: int, number: int) -> bytes:
    link.sendall(request(kind, number))
    return receive(link)


def receive(link: socket.socket) -> bytes:
    try:
        return link.recv(1000)
    except ConnectionError:
        return b""


def test_a_whole_link_passes_and_names_itself(proxy: Proxy) -> None:
    """The answer to a question for brokers has the proxy's port; every request is counted."""
    with connect(proxy) as link:
        assert ask(link, METADATA, 1) == answer(1, HOST.encode() + struct.pack(">i", proxy.port))
        assert len(ask(link, END_TXN, 2)) == len(answer(2)) + 13
    assert proxy.requests == {METADATA: 1, END_TXN: 1}


def test_the_answer_to_the_end_of_a_transaction_is_withheld_once(proxy: Proxy) -> None:
    """Others pass before it; the connection is cut; the next one is whole."""
    with connect(proxy) as link:
        proxy.drop_answer(END_TXN)
        assert ask(link, METADATA, 1)
        assert ask(link, END_TXN, 2) == b""
    assert proxy.counts.dropped == 1
    assert proxy.dropped_at is not None
    with connect(proxy) as link:
        assert ask(link, END_TXN, 3)
    assert proxy.counts.dropped == 1
    assert proxy.requests[END_TXN] == 2


def test_an_answer_comes_late_once(proxy: Proxy) -> None:
    """The next one of its kind, and only that."""
    with connect(proxy) as link:
        proxy.hold_answer(END_TXN, 0.3)
        times = []
        for number in (1, 2):
            began = time.monotonic()
            assert ask(link, END_TXN, number)
            times.append(time.monotonic() - began)
    assert times[0] >= 0.3 > times[1]


def test_a_cut_link_ends_and_refuses(proxy: Proxy) -> None:
    """What was open ends, what is new too, until it is whole again."""
    with connect(proxy) as link:
        assert ask(link, METADATA, 1)
        proxy.set_link("cut")
        assert receive(link) == b""
    with connect(proxy) as link:
        assert receive(link) == b""
    assert proxy.counts.cut >= 2
    proxy.set_link("whole")
    with connect(proxy) as link:
        assert ask(link, METADATA, 1)


def test_a_half_open_link_takes_and_never_answers(proxy: Proxy) -> None:
    """Neither on what was open nor on what is new; what was swallowed is lost, so it ends cut."""
    with connect(proxy, 0.3) as link, connect(proxy, 0.3) as other:
        assert ask(link, METADATA, 1)
        proxy.set_link("half_open")
        for each in (link, other):
            with pytest.raises(TimeoutError):
                ask(each, METADATA, 2)
        assert proxy.counts.swallowed_bytes >= 2 * len(request(METADATA, 2))
        proxy.set_link("whole")
        assert receive(link) == b""


def test_a_slow_link_is_slow_both_ways(proxy: Proxy) -> None:
    """A question and its answer wait once each."""
    with connect(proxy) as link:
        assert ask(link, METADATA, 1)
        proxy.set_link("slow", 0.2)
        began = time.monotonic()
        assert ask(link, METADATA, 2)
        assert time.monotonic() - began >= 0.4
    assert proxy.counts.delayed >= 2


def test_a_broker_that_is_away_is_a_connection_that_ends() -> None:
    """As without the proxy."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))  # nobody listens
        proxy = Proxy(taken.getsockname()[1])
        with connect(proxy) as link:
            assert receive(link) == b""
        proxy.close()
