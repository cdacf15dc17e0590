"""Reading what a form sends: small and UTF-8, or one file where a page takes one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

MAX_BYTES = 2_000_000
MAX_FIELDS = 2_000
MAX_UPLOAD_BYTES = 64_000_000
FORM_TYPE = "application/x-www-form-urlencoded"
UPLOAD_TYPE = "multipart/form-data"


class BadForm(Exception):
    """It is no form of ours. ``status`` is what the browser is told."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a form sent, under the name that the browser gives it."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """What a form sent: its values by name, and a file, None where there is none."""

    lists: Mapping[str, Sequence[str]]
    upload: Upload | None = None


NOTHING_SENT = Sent({})


class _InMemory(MultiPartParser):
    """Keeps a file out of temporary ones: it holds messages."""

    spool_max_size = MAX_UPLOAD_BYTES


async def read_form(request: Request) -> Sent:
    """Return the values of a form without a file. Raises BadForm."""
    if _type_of(request) != FORM_TYPE:
        raise BadForm(415)
    body = b"".join([chunk async for chunk in _bounded(request, MAX_BYTES)])
    try:
        return Sent(
            parse_qs(
                body.decode("utf-8"),
                keep_blank_values=True,
                max_num_fields=MAX_FIELDS,
                errors="strict",
            )
        )
    except ValueError:  # no UTF-8, or too many fields
        raise BadForm(400) from None


def is_upload(request: Request) -> bool:
    """Tell whether a form comes with a file."""
    return _type_of(request) == UPLOAD_TYPE


async def read_upload(request: Request) -> Sent:
    """Return the values of a form with a file. Raises BadForm."""
    body = _bounded(request, MAX_UPLOAD_BYTES)
    try:
        parsed = await _InMemory(request.headers, body, max_files=1, max_fields=20).parse()
    except MultiPartException:
        raise BadForm(400) from None
    values: dict[str, list[str]] = {}
    upload = None
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            upload = Upload(value.filename or "", await value.read())
            await value.close()
        else:
            values.setdefault(name, []).append(value)
    return Sent(values, upload)


def number(text: str) -> int:
    """Return a number of an address or a form, -1 where it is none: nothing has that."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else -1


def _type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise BadForm(413)
        yield chunk
