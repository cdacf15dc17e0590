"""The web application: every page that there is, behind the same door."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import desk.web.pages
from desk.auth.attempts import Attempts
from desk.auth.provider import Provider
from desk.service.context import Desk
from desk.web import metrics
from desk.web.answering import endpoint, error_page
from desk.web.headers import KnownHosts, OwnPort, SecurityHeaders
from desk.web.options import WebOptions
from desk.web.strings import t
from desk.web.templates import STATIC, environment, static_address
from desk.web.visit import Page, Web

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_PROBES = ("/livez", "/readyz", "/metrics")


def find_pages() -> Sequence[Page]:
    """Return all pages: ``PAGES`` of each module in ``desk.web.pages``."""
    found: list[Page] = []
    for module in sorted(each.name for each in pkgutil.iter_modules(desk.web.pages.__path__)):
        found += importlib.import_module(f"desk.web.pages.{module}").PAGES
    return found


def build_application(
    opened: Desk, options: WebOptions, provider: Provider | None = None
) -> Starlette:
    """Return the application of an open desk; ``provider`` where people sign in by one."""
    pages = find_pages()
    links = sorted((page for page in pages if page.link), key=lambda page: page.order)
    web = Web(opened, options, environment(), Attempts(opened.clock), links, provider)
    counted = metrics.Metrics(opened)

    def livez(_: Request) -> Response:
        return PlainTextResponse("ok")

    def readyz(_: Request) -> Response:
        ready = metrics.is_ready(opened)
        return PlainTextResponse("ok" if ready else "no database", 200 if ready else 503)

    def show_metrics(_: Request) -> Response:
        return Response(counted.text(), media_type=metrics.CONTENT_TYPE)

    async def not_found(_: Request, __: Exception) -> Response:
        return error_page(web, 404, t("error.not_here"))

    async def not_by_this(_: Request, __: Exception) -> Response:
        return error_page(web, 405, t("error.not_here"))

    routes = [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", show_metrics),
        Route("/static/{digest}/{name}", _static),
        *(Route(page.path, endpoint(web, page), methods=[page.method]) for page in pages),
    ]
    middleware = [
        Middleware(SecurityHeaders, secure=options.secure),
        Middleware(KnownHosts, hosts=options.allowed_hosts, open_paths=_PROBES),
        Middleware(metrics.Timed, metrics=counted),
    ]
    if options.metrics_port is not None:
        middleware.insert(1, Middleware(OwnPort, path="/metrics", port=options.metrics_port))
    return Starlette(
        routes=routes,
        exception_handlers={404: not_found, 405: not_by_this},
        middleware=middleware,
    )


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in {path.name for path in STATIC.iterdir()}:
        return PlainTextResponse(t("error.not_here"), 404)
    kind = _TYPES[name.rpartition(".")[2]]
    response = Response((STATIC / name).read_bytes(), media_type=kind)
    if request.url.path == static_address(name):
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response
