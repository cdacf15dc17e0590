"""From a page to an endpoint: who it is, whether they may, whether the form is ours, and what is
said where something goes wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from desk.errors import DeskError, NotAllowed, Refused, TryAgain
from desk.service.context import may, require
from desk.web.forms import NOTHING_SENT, BadForm, Sent, is_upload, read_form, read_upload
from desk.web.identity import (
    Identity,
    csrf_token,
    identify,
    is_csrf_token,
    new_form_token,
    set_cookie,
)
from desk.web.strings import t
from desk.web.visit import Page, Visit, Web, redirect
from worker.common.errors import format_private

_log = structlog.get_logger("desk.web")

Endpoint = Callable[[Request], Awaitable[Response]]


def endpoint(web: Web, page: Page) -> Endpoint:
    """Return what the web server calls. Pages themselves run on a thread."""

    async def answer(request: Request) -> Response:
        sent = NOTHING_SENT
        try:
            if request.method == "POST" and page.takes_file and is_upload(request):
                # So large a form is read of those alone who may send it; others are told below.
                if await run_in_threadpool(_may_send, web, page, request):
                    sent = await read_upload(request)
            elif request.method == "POST":
                sent = await read_form(request)
        except BadForm as error:
            return PlainTextResponse(t("error.form"), error.status)
        return await run_in_threadpool(_answer, web, page, request, sent)

    return answer


def error_page(web: Web, status: int, words: str, *, by_script: bool = False) -> Response:
    """Return a page that says what went wrong; for the script, the words alone."""
    if by_script:
        return PlainTextResponse(words, status)
    visit = Visit(web, None, "", "")
    return visit.page("error.html", status, title=t(f"error.{status}"), words=words)


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
        return _let_in(web, page, request, sent, form)
    except NotAllowed as error:
        return error_page(web, 403, str(error), by_script=by_script)
    except Refused as error:
        return error_page(web, 409, str(error), by_script=by_script)
    except TryAgain:
        return error_page(web, 503, t("error.away"), by_script=by_script)
    except DeskError as error:
        _log.error("page.failed", page=page.path, traceback=format_private(error))
        return error_page(web, 500, t("error.ours"), by_script=by_script)
    except Exception as error:  # noqa: BLE001 - said to the person without its words
        _log.error("page.failed", page=page.path, traceback=format_private(error))
        return error_page(web, 500, t("error.ours"), by_script=by_script)


def _let_in(
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
            return _sign_in_first(web, request, by_script=_by_script(request, form))
        require(identity.person, page.role)
    token = token or form_token
    if page.method == "POST" and not is_csrf_token(token, form.get("csrf", "")):
        return error_page(web, 403, t("error.csrf"), by_script=_by_script(request, form))
    response = page.handler(
        Visit(
            web=web,
            person=identity.person,
            csrf=csrf_token(token),
            peer=peer,
            route={key: str(value) for key, value in request.path_params.items()},
            query={name: _plain(value) for name, value in request.query_params.items()},
            form=form,
            lists=sent.lists,
            cookies=request.cookies,
            path=request.url.path,
            upload=sent.upload,
        )
    )
    if identity.is_new:
        set_cookie(web, response, options.session_cookie, identity.token)
    if form_token and page.method == "GET":
        set_cookie(web, response, options.form_cookie, form_token)
    return response


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


def _plain(value: str) -> str:
    """Return what was sent without NUL, which PostgreSQL keeps in no text."""
    return value.replace("\x00", "")


def _by_script(request: Request, form: Mapping[str, str]) -> bool:
    return (form.get("part") or request.query_params.get("part")) == "1"


def _sign_in_first(web: Web, request: Request, *, by_script: bool) -> Response:
    if web.options.method in {"local", "oidc"} and request.method == "GET" and not by_script:
        # What the provider sends back goes to one address, and so do the cookies.
        base = web.provider.config.public_url if web.provider is not None else ""
        path = request.url.path if request.url.path != "/" else ""
        return redirect(f"{base}/sign-in", next=path)
    words = t("error.proxy" if web.options.method == "proxy" else "error.signed_out")
    return error_page(web, 401, words, by_script=by_script)
