"""A server that resets a connection, as one does that is killed just then."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from desk.errors import DatabaseAway
from desk.store.database import Database

NO_TLS = b"N"
READY = b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I"
"""AuthenticationOk, ReadyForQuery: "Message Formats" in PostgreSQL's documentation."""


@pytest.fixture(params=[(), (NO_TLS, READY)], ids=["connecting", "asking"])
def dying_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that gives these answers, takes one message more and resets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            for answer in request.param:
                connection.recv(4096)
                connection.sendall(answer)
            connection.recv(4096)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def test_a_server_that_resets_the_connection_is_away(dying_port: int) -> None:
    """Whoever asked tries again; an error of the socket's would end a request with 500."""
    database = Database(f"postgresql://desk@127.0.0.1:{dying_port}/desk")
    with pytest.raises(DatabaseAway), database.read():
        pass
    database.close()
