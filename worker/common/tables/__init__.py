"""Read tables as people have them: CSV, JSON Lines, Parquet, Arrow, and workbooks (.xlsx).

Everything that a file can be read in spite of is found out and shown (``Found``), and all of its
problems come back at once (``Table.problems``), each with its count and first rows. Neither holds a
cell's text. Rows are read again at each pass, so a file is never held whole.

Standard library at import; the extra ``tables`` holds what encodings and workbooks need.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path, PurePath

from worker.common.encodings import EncodingError, Opener
from worker.common.tables.arrow import open_arrow
from worker.common.tables.table import Format, Found, Problem, Table, TableError
from worker.common.tables.text import open_csv, open_jsonl
from worker.common.tables.workbook import Limits, open_workbook

SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}


LIMITS = Limits()


def format_of(name: str) -> Format | None:
    """Return a file's format by its name, None if the name does not say."""
    return SUFFIXES.get(PurePath(name).suffix.casefold())


def read_table(
    source: Path | bytes,
    name: str,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    limits: Limits = LIMITS,
    may_be_short: bool = False,
) -> Table:
    """Open a file, or its bytes; ``name`` is for its format and for errors.

    ``encoding``, ``delimiter`` and ``sheet`` are the user's choices instead of what is found.
    ``may_be_short``: a CSV file's rows may lack cells at their end. Excel leaves out empty ones,
    but a message with a line end and no quotes leaves such rows behind too, so without it only
    cells that a pass does not need may be missing.
    Raises TableError if nothing of it can be read.
    """
    opener = _opener(source, name)
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if limits.max_bytes is not None and size > limits.max_bytes:
        raise TableError(
            f"{name}: has {size / 1e6:,.0f} MB, and {limits.max_bytes / 1e6:,.0f} MB are allowed: "
            "split the file"
        )
    with opener() as file:
        head = file.read(1 << 12)
    if size == len(head) and not head.strip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"):
        raise TableError(f"{name}: the file is empty")
    kind = _kind(head, name)
    try:
        if kind == "csv":
            return open_csv(opener, name, encoding, delimiter, may_be_short)
        if kind == "jsonl":
            return open_jsonl(opener, name, encoding)
        if kind == "xlsx":
            return open_workbook(opener, name, sheet, limits)
        return open_arrow(opener, name, kind)
    except EncodingError as error:
        text = str(error)
        raise TableError(text if text.startswith((name, "--")) else f"{name}: {text}") from error


def _opener(source: Path | bytes, name: str) -> Opener:
    if isinstance(source, bytes):
        return lambda: io.BytesIO(source)
    try:
        source.open("rb").close()
    except OSError as error:
        raise TableError(f"{name}: cannot read it: {error.strerror}") from error
    return lambda: source.open("rb")


_MAGIC = {
    b"\xd0\xcf\x11\xe0": "an old .xls workbook or has a password: save it as .xlsx, without one",
    b"\x1f\x8b": "compressed: unpack it",
    b"7z\xbc\xaf": "compressed: unpack it",
    b"%PDF": "a PDF: export the table as CSV",
    b"SQLite format 3": "a database: export the table as CSV",
}
_HTML = (b"<html", b"<!doctype", b"<table")


def _kind(head: bytes, name: str) -> Format:
    """Return the format, by what the file begins with rather than by its name. Raises
    TableError."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise TableError(f"{name}: is {what}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        raise TableError(f"{name}: is an HTML page: open it in a spreadsheet and save it as .xlsx")
    if head.startswith(b"PK\x03\x04"):
        return "xlsx"
    if head.startswith(b"PAR1"):
        return "parquet"
    kind = format_of(name)
    if kind is None:
        raise TableError(
            f"{name}: cannot tell the format: the name must end with {', '.join(SUFFIXES)}"
        )
    if kind == "xlsx":
        raise TableError(
            f"{name}: not a complete .xlsx workbook: save it again as .xlsx, without a password"
        )
    return kind
