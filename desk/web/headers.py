"""What goes with every response, and which hosts are answered at all."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from desk.web.strings import t

# Nothing from elsewhere, no inline script, no inline style, no frame around it, no form out of it.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The addresses of pages say what somebody looked for.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityHeaders:
    """Adds the headers; messages are never kept by the browser."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to what comes back."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                if self._secure:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, with_headers)


class OwnPort:
    """Answers ``path`` on ``port`` alone, and nothing else there."""

    def __init__(self, app: ASGIApp, *, path: str, port: int) -> None:
        self._app = app
        self._path = path
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or say that there is nothing here."""
        # Where the connection came in, by the socket; the visitor's headers have no say in it.
        if (scope["path"] == self._path) == (scope["server"][1] == self._port):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse(t("error.not_here"), 404)(scope, receive, send)


class KnownHosts:
    """Answers requests for these hosts alone ("*": all), and forms that this host's pages sent.

    Probes come by address: what begins with ``open_paths`` is answered for any host.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], open_paths: Sequence[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._open_paths = tuple(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        given = headers.get("host", "")
        if scope["path"] in self._open_paths or self._is_known(given):
            origin = headers.get("origin")
            if scope["method"] == "POST" and origin is not None and not _same(origin, given):
                await PlainTextResponse(t("error.origin"), 403)(scope, receive, send)
                return
            await self._app(scope, receive, send)
            return
        await PlainTextResponse(t("error.host"), 400)(scope, receive, send)

    def _is_known(self, given: str) -> bool:
        if "*" in self._hosts:
            return True
        name = given.lower()
        name = name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
        return name in self._hosts


def _same(origin: str, host: str) -> bool:
    """Tell whether an origin is the host itself. The scheme is the proxy's, which is not seen."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
