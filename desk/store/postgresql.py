"""A connection to PostgreSQL whose loss is told as the driver's own error.

SQLAlchemy knows a lost connection by the driver's InterfaceError. pg8000 1.31.6 lets the socket's
errors through in two places (core.py): ``_make_socket``, while it asks whether the server speaks
TLS, and the first read of ``_read``. There a request would end with the socket's error instead of
being tried again. It also leaves the socket open in both cases.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from pg8000.legacy import Connection, InterfaceError

_LOST = "network error"
"""SQLAlchemy's dialect looks for these words."""


class CheckedConnection(Connection):  # type: ignore[misc]
    """pg8000's connection; a lost one is an InterfaceError, and its socket is closed."""

    def handle_messages(self, context: Any) -> None:
        """Read the server's answer to its end. Raises InterfaceError where the server has gone."""
        try:
            super().handle_messages(context)
        except OSError as error:
            raise InterfaceError(_LOST) from error

    def close(self) -> None:
        """Say goodbye and close the socket. Raises InterfaceError where the server has gone."""
        stream = self._sock
        try:
            super().close()
        finally:
            # What could not be sent is still in its buffer, and closing tries once more.
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
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return CheckedConnection(**options, sock=own)
    except OSError as error:
        if own is not None:
            own.close()
        raise InterfaceError(_LOST) from error
