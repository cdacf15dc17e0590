"""What is wrong with a TLS connection, in more words than the Kafka client's. Standard library.

The client says "certificate verify failed" of an unknown authority, of another host's name and of a
certificate that has expired alike. So once it has failed, one handshake is made to see.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from worker.stream.kafka_promises import Properties

_PROBE_S = 3.0

Peer = Literal["tls", "no_tls", "unreachable"]


def why_not_verified(servers: str, properties: Properties) -> str | None:
    """Return OpenSSL's reason for not trusting the first server that answers; None: it does.

    The authorities and the check of the name are those that the client was given.
    """
    for host, port in _addresses(servers):
        try:
            context = _context(properties)
            with (
                socket.create_connection((host, port), timeout=_PROBE_S) as plain,
                context.wrap_socket(plain, server_hostname=host),
            ):
                return None
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except OSError:  # ssl.SSLError is one: it wants our certificate, or speaks no TLS
            continue
    return None


def peer_kind(servers: str) -> Peer:
    """Tell whether the first server that answers speaks TLS, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent or believed: only asked
    for host, port in _addresses(servers):
        try:
            plain = socket.create_connection((host, port), timeout=_PROBE_S)
        except OSError:
            continue
        with plain:
            try:
                context.wrap_socket(plain, server_hostname=host).close()
            except OSError as error:  # an alert is TLS too
                return "tls" if "ALERT" in (getattr(error, "reason", None) or "") else "no_tls"
            return "tls"
    return "unreachable"


def _context(properties: Properties) -> ssl.SSLContext:
    where, pem = properties.get("ssl.ca.location"), properties.get("ssl.ca.pem")
    path = Path(str(where)) if where else None
    context = ssl.create_default_context(
        cafile=str(path) if path and path.is_file() else None,
        capath=str(path) if path and path.is_dir() else None,
        cadata=str(pem) if pem else None,
    )
    if str(properties.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
        context.check_hostname = False
    return context


def _addresses(servers: str) -> Iterator[tuple[str, int]]:
    for server in servers.split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        if host and port.isdecimal():
            yield host.strip("[]"), int(port)
