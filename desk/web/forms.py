"""Reading what a form sends: small, UTF-8, never a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from starlette.requests import Request

MAX_BYTES = 2_000_000
MAX_FIELDS = 2_000
FORM_TYPE = "application/x-www-form-urlencoded"


class BadForm(Exception):
    """It is no form of ours. ``status`` is what the browser is told."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def read_form(request: Request) -> Mapping[str, Sequence[str]]:
    """Return the values by name. Raises BadForm."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise BadForm(415)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise BadForm(413)
    try:
        return parse_qs(
            body.decode("utf-8"),
            keep_blank_values=True,
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except ValueError:  # no UTF-8, or too many fields
        raise BadForm(400) from None
