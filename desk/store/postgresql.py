"""A connection to PostgreSQL that raises the driver's own error for every failure.

SQLAlchemy knows a lost connection by the driver's InterfaceError. pg8000 1.31.6 lets the socket's
errors through in two places (core.py): ``_make_socket``, while it asks whether the server speaks
TLS, and the first read of ``_read``. There a request would fail with the socket's error instead of
being tried again. It also leaves the socket open in both cases, and fails without saying so if the
server wants a password and there is none.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from pg8000.legacy import Connection, DatabaseError, InterfaceError

from desk.store.database import sqlstate

_LOST = "network error"
"""SQLAlchemy's dialect recognizes a lost connection by these words."""

_WANT_PASSWORD = (3, 5, 10)
"""AuthenticationCleartextPassword, MD5Password, SASL: "Message Formats" in PostgreSQL's
documentation."""

_READ_ONLY = "25006"


class CheckedConnection(Connection):  # type: ignore[misc]
    """pg8000's connection. If it is lost, InterfaceError is raised and the socket closed."""

    def handle_messages(self, context: Any) -> None:
        """Read the server's answer to its end. Raises InterfaceError if the connection is lost."""
        # pg8000 lets the socket's error through, which SQLAlchemy does not recognize as a lost
        # connection: the pool would keep it.
        try:
            super().handle_messages(context)
        except OSError as error:
            raise InterfaceError(_LOST) from error

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802
        """Authenticate. Raises DatabaseError if the server wants a password and there is none."""
        if self.password is None and int.from_bytes(data[:4], "big") in _WANT_PASSWORD:
            raise DatabaseError({"C": "28P01", "M": "a password is wanted, and none was given"})
        super().handle_AUTHENTICATION_REQUEST(data, context)

    def wait_for_answers(self, timeout_s: float | None) -> None:
        """Close the connection if a statement is not answered in this time (None: no limit)."""
        if self._usock is not None:
            # pg8000 has no way to change the timeout of an open connection.
            self._usock.settimeout(timeout_s)

    def close(self) -> None:
        """Terminate the session if the server is still there, and close the socket."""
        stream = self._sock
        with suppress(InterfaceError):
            super().close()
        # Unsent bytes are still in the buffer, and closing tries to send them.
        with suppress(OSError):
            stream.close()


def connect(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> Any:
    """Connect, as SQLAlchemy's event ``do_connect`` asks for. ``options`` are pg8000's, with a
    ``timeout`` in seconds. Raises InterfaceError where no connection can be had."""
    if "unix_sock" in options:
        return CheckedConnection(**options)
    address = (options.get("host", "localhost"), options.get("port", 5432))
    own = None
    try:
        own = socket.create_connection(address, options["timeout"])
        # Pooled connections are idle for long, and firewalls drop silent ones.
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return CheckedConnection(**options, sock=own)
    except OSError as error:
        if own is not None:
            own.close()
        raise InterfaceError(_LOST) from error


def leave_standby(context: Any) -> None:
    """Drop the connections to a read-only server, as SQLAlchemy's event ``handle_error``: after a
    failover the same address leads to the new primary."""
    if sqlstate(context.original_exception) == _READ_ONLY:
        context.is_disconnect = True
