"""Where the OpenID provider sends people back to."""

from __future__ import annotations

from starlette.responses import Response

from desk.web.provider_visit import come_back
from desk.web.visit import Page, Visit, redirect


def callback(visit: Visit) -> Response:
    """The provider's answer."""
    if visit.web.provider is None:
        return redirect("/")
    return come_back(visit, visit.web.provider)


def signed_out(visit: Visit) -> Response:
    """Signed out, here and there."""
    return visit.page("left.html", onward="")


PAGES = (
    Page("/sign-in/callback", callback, None),
    Page("/signed-out", signed_out, None),
)
