"""The web application: sign-in, roles, forms and errors, the same for every page."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import urlencode, urlsplit

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import desk.web.pages
from desk.auth.passwords import Attempts, SignInQueue
from desk.auth.provider import Provider
from desk.auth.rules import client_address, is_trusted
from desk.errors import DeskError, NotAllowed, Refused, TryAgain
from desk.service.context import Desk, may, require
from desk.web import metrics
from desk.web.identity import (
    Identity,
    csrf_token,
    identify,
    is_csrf_token,
    new_form_token,
    set_cookie,
)
from desk.web.strings import t
from desk.web.templates import STATIC, environment, static_address
from desk.web.visit import (
    NOTHING_SENT,
    BadForm,
    Page,
    Sent,
    Visit,
    Web,
    WebOptions,
    is_upload,
    read_form,
    read_upload,
    redirect,
)
from worker.common.errors import format_private

_log = structlog.get_logger("desk.web")

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

# In the navigation while one user labels a file (``WebOptions.batch``): nothing about other
# reviewers, or about a model in service.
_OF_A_FILE = {"/", "/review", "/search", "/clusters", "/guidelines", "/my-day"}

_PROBES = ("/livez", "/readyz", "/metrics")

_NOT_HERE = "There is no page at this address."
_OURS = "The error is in the log, and nothing was changed. Try again."
_AWAY = "The database does not answer, and nothing was changed. Try again in a moment."
_BUSY = "Too many sign-ins from your address are being checked. Try again in a moment."
_OTHER_SITE = "This form came from another site."
_NO_FORM = "This form could not be read. Reload the page and try again."
_NO_NAME = "The proxy in front of this desk did not send your name. Sign in there again."
_NO_HOST = "The desk does not answer to this host name: add it to web.hostnames."
_NO_TLS = (
    "TLS is missing: the desk's cookies need HTTPS, and this page came over plain HTTP. Open the "
    "desk by https://. Operators: put a proxy with TLS in front of it, or set web.secure_cookies "
    "to false."
)
_OTHER_SESSION = "This form is from an earlier session. Reload the page and send it again."

_FORM_S, _UPLOAD_S = 30.0, 600.0  # for a request's body to arrive

# Nothing from other sites, no inline script or style, no framing, no forms to other sites.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Addresses of pages contain search words.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def build_application(
    opened: Desk, options: WebOptions, provider: Provider | None = None
) -> Starlette:
    """Return the web application of an open desk; ``provider`` for sign-in by OpenID."""
    pages = find_pages()
    links = sorted(
        (
            page
            for page in pages
            if page.link and (options.batch is None or page.path in _OF_A_FILE)
        ),
        key=lambda page: page.order,
    )
    web = Web(
        opened, options, environment(), Attempts(opened.clock), SignInQueue(), links, provider
    )
    counted = metrics.Metrics(opened)

    def livez(_: Request) -> Response:
        return PlainTextResponse("ok")

    def readyz(_: Request) -> Response:
        ready = metrics.is_ready(opened)
        return PlainTextResponse("ok" if ready else "no database", 200 if ready else 503)

    def show_metrics(_: Request) -> Response:
        return Response(counted.text(), media_type=metrics.CONTENT_TYPE)

    async def not_found(_: Request, __: Exception) -> Response:
        return error_page(web, 404, _NOT_HERE)

    async def not_by_this(_: Request, __: Exception) -> Response:
        return error_page(web, 405, _NOT_HERE)

    routes = [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", show_metrics),
        Route("/static/{digest}/{name}", _static),
        *(Route(page.path, endpoint(web, page), methods=[page.method]) for page in pages),
    ]
    # The first is the outermost: refusals have the headers too, and a request for another host or
    # port is refused before it is counted.
    middleware = [
        Middleware(SecurityHeaders, secure=options.secure),
        Middleware(OwnPort, path="/metrics", port=options.metrics_port),
        Middleware(KnownHosts, hosts=options.allowed_hosts, open_paths=_PROBES),
        Middleware(metrics.Timed, metrics=counted),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={404: not_found, 405: not_by_this},
        middleware=middleware,
    )


def find_pages() -> Sequence[Page]:
    """Return all pages: ``PAGES`` of each module in ``desk.web.pages``."""
    found: list[Page] = []
    for module in sorted(each.name for each in pkgutil.iter_modules(desk.web.pages.__path__)):
        found += importlib.import_module(f"desk.web.pages.{module}").PAGES
    return found


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    # Only names in the folder's list, so that no name leads out of it.
    if name not in {path.name for path in STATIC.iterdir()}:
        return PlainTextResponse(_NOT_HERE, 404)
    kind = _TYPES[name.rpartition(".")[2]]
    response = Response((STATIC / name).read_bytes(), media_type=kind)
    # Another digest comes from a page of another version: answered, but not to be kept.
    if request.url.path == static_address(name):
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def endpoint(web: Web, page: Page) -> Endpoint:
    """Return the ASGI endpoint of a page. The page itself runs on a thread."""

    async def answer(request: Request) -> Response:
        sent = NOTHING_SENT
        # Read here, on the event loop: on a thread, forty forms that arrive slowly would take all
        # threads of the desk.
        try:
            if request.method == "POST" and page.takes_file and is_upload(request):
                # Only from users who may send it; the others get their error below.
                if await run_in_threadpool(_may_send, web, page, request):
                    async with asyncio.timeout(_UPLOAD_S):
                        sent = await read_upload(request)
            elif request.method == "POST":
                async with asyncio.timeout(_FORM_S):
                    sent = await read_form(request)
        except TimeoutError:
            return PlainTextResponse("The form did not arrive in time. Try again.", 408)
        except BadForm as error:
            return PlainTextResponse(_NO_FORM, error.status)
        if not page.checks_password:
            return await run_in_threadpool(_answer, web, page, request, sent)
        async with web.sign_ins.turn(_address(web, request)) as in_turn:
            if in_turn:
                return await run_in_threadpool(_answer, web, page, request, sent)
        return error_page(web, 429, _BUSY)

    return answer


def error_page(
    web: Web, status: int, words: str, *, by_script: bool = False, onward: str = ""
) -> Response:
    """Return a page with an error; for the script, only its text. ``onward`` is where its button
    leads instead of the first page."""
    if by_script:
        return PlainTextResponse(words, status)
    visit = Visit(web, None, "")
    return visit.page("error.html", status, title=t(f"error.{status}"), words=words, onward=onward)


def _may_send(web: Web, page: Page, request: Request) -> bool:
    try:
        person = identify(web, request.cookies, request.headers, _peer(request)).person
    except DeskError:
        return False
    return person is not None and page.role is not None and may(person, page.role)


def _answer(web: Web, page: Page, request: Request, sent: Sent) -> Response:
    lists = {name: [_plain(value) for value in values] for name, values in sent.lists.items()}
    sent = Sent(lists, sent.upload)
    form = {name: values[0] for name, values in lists.items()}
    by_script = _by_script(request, form)
    try:
        return _authorized(web, page, request, sent, form)
    except NotAllowed as error:
        return error_page(web, 403, str(error), by_script=by_script)
    except Refused as error:
        return error_page(web, 409, str(error), by_script=by_script)
    except TryAgain:
        return error_page(web, 503, _AWAY, by_script=by_script)
    except Exception as error:  # noqa: BLE001 - its text may hold a message
        _log.error("page.failed", page=page.path, traceback=format_private(error))
        return error_page(web, 500, _OURS, by_script=by_script)


def _authorized(
    web: Web,
    page: Page,
    request: Request,
    sent: Sent,
    form: Mapping[str, str],
) -> Response:
    peer = _peer(request)
    options = web.options
    identity = Identity(None, "", False)
    token = request.cookies.get(options.form_cookie, "")
    form_token = "" if token or page.role is not None else new_form_token()
    if page.role is not None:
        identity = identify(web, request.cookies, request.headers, peer)
        token = identity.token
        if identity.person is None:
            return _sign_in_first(web, request, form, by_script=_by_script(request, form))
        require(identity.person, page.role)
    # The sign-in form has a token too: otherwise another site could sign a user in under an account
    # of its own, and read what the user decides there (login CSRF).
    token = token or form_token
    if page.method == "POST" and not is_csrf_token(token, form.get("csrf", "")):
        words = _NO_TLS if _lacks_tls(web, request) else _OTHER_SESSION
        return error_page(web, 403, words, by_script=_by_script(request, form))
    response = page.handler(
        Visit(
            web=web,
            person=identity.person,
            csrf=csrf_token(token),
            address=_address(web, request),
            unknown_proxy=(
                "x-forwarded-for" in request.headers
                and not is_trusted(peer, options.proxy_addresses)
            ),
            route={key: str(value) for key, value in request.path_params.items()},
            query={name: _plain(value) for name, value in request.query_params.items()},
            form=form,
            lists=sent.lists,
            cookies=request.cookies,
            path=request.url.path,
            from_here=request.headers.get("sec-fetch-site") in {"same-origin", "none"},
            upload=sent.upload,
        )
    )
    if identity.is_new:
        set_cookie(web, response, options.session_cookie, identity.token)
    if form_token and page.method == "GET":
        set_cookie(web, response, options.form_cookie, form_token)
    return response


class SecurityHeaders:
    """Adds the security headers; browsers must not cache messages."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, and add the headers to the response."""

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
    """Answers ``path`` only on ``port``, and nothing else there."""

    def __init__(self, app: ASGIApp, *, path: str, port: int) -> None:
        self._app = app
        self._path = path
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404."""
        # By the socket of the connection: the Host header is the visitor's.
        if (scope["path"] == self._path) == (scope["server"][1] == self._port):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse(_NOT_HERE, 404)(scope, receive, send)


class KnownHosts:
    """Answers requests for these hosts ("*": all), and forms that pages of the same host sent.

    Probes come by address, so ``open_paths`` are answered for any host.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], open_paths: Sequence[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._open_paths = tuple(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or refuse it."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        given = headers.get("host", "")
        if scope["path"] in self._open_paths or self._is_known(given):
            origin = headers.get("origin")
            # Without an Origin header the form's token alone decides.
            if scope["method"] == "POST" and origin is not None and not _same(origin, given):
                await PlainTextResponse(_OTHER_SITE, 403)(scope, receive, send)
                return
            await self._app(scope, receive, send)
            return
        await PlainTextResponse(_NO_HOST, 400)(scope, receive, send)

    def _is_known(self, given: str) -> bool:
        if "*" in self._hosts:
            return True
        name = given.lower()
        name = name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
        return name in self._hosts


def _same(origin: str, host: str) -> bool:
    """Tell whether an origin is the host itself. The scheme is not compared: behind a proxy with
    TLS the desk sees http."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _lacks_tls(web: Web, request: Request) -> bool:
    """Tell whether the browser uses plain HTTP, so that it drops cookies marked Secure. Only the
    Origin header of a form shows it: behind a proxy with TLS every request arrives as HTTP."""
    return web.options.secure and request.headers.get("origin", "").startswith("http://")


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


def _address(web: Web, request: Request) -> str:
    forwarded = request.headers.getlist("x-forwarded-for")
    return client_address(_peer(request), forwarded, web.options.proxy_addresses)


def _plain(value: str) -> str:
    """Remove NUL, which PostgreSQL cannot store in a text."""
    return value.replace("\x00", "")


def _by_script(request: Request, form: Mapping[str, str]) -> bool:
    return (form.get("part") or request.query_params.get("part")) == "1"


def _sign_in_first(
    web: Web, request: Request, form: Mapping[str, str], *, by_script: bool
) -> Response:
    path, here = request.url.path, ""
    if request.method == "GET" and path != "/":
        here = f"{path}?{request.url.query}" if request.url.query else path
    elif form.get("item"):
        # Back to the message, with what was chosen: the decision itself was not saved.
        here = f"{path}?{urlencode({'item': form['item'], 'answer': form.get('action', '')})}"
    if web.options.method == "proxy":
        return error_page(web, 401, _NO_NAME, by_script=by_script)
    # The provider redirects to one address, so the sign-in must begin there too: cookies are bound
    # to a host.
    base = web.provider.config.public_url if web.provider is not None else ""
    if request.method == "GET" and not by_script:
        return redirect(f"{base}/sign-in", next=here)
    onward = f"{base}/sign-in?{urlencode({'next': here})}"
    return error_page(web, 401, "You are signed out.", by_script=by_script, onward=onward)
