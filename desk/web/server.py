"""The web server on a thread of its own, so that the desk ends by what ends its work too."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from desk.auth.provider import Provider
from desk.errors import SettingsError
from desk.service.context import Desk
from desk.web.application import build_application
from desk.web.options import WebOptions

_GRACE_S = 10


@contextmanager
def serve(desk: Desk, options: WebOptions, provider: Provider | None = None) -> Iterator[str]:
    """Serve the pages until the end; yields their address. Raises SettingsError where the address
    cannot be listened on."""
    listening = [_listen(options.host, options.port, "web.port")]
    if options.metrics_port is not None:
        listening.append(_listen(options.host, options.metrics_port, "web.metrics_port"))
    config = uvicorn.Config(
        build_application(desk, options, provider),
        log_config=None,
        access_log=False,  # addresses of pages hold what people searched for
        server_header=False,
        proxy_headers=False,  # whom to believe is decided by desk.auth
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=32_768,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": listening}, name="web", daemon=True
    )
    thread.start()
    try:
        host = f"[{options.host}]" if ":" in options.host else options.host
        yield f"http://{host}:{listening[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_GRACE_S + 5)
        for each in listening:
            each.close()


def _listen(host: str, port: int, setting: str) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((address[0], port), family=family, backlog=512)
    except OSError as error:
        raise SettingsError(
            f"web.host and {setting}: {host}:{port} cannot be listened on: {error.strerror}"
        ) from error
