"""Read text and CSV files strictly: a wrong encoding or a broken line is an error."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from trainer.errors import BadInput

_DELIMITERS = (",", ";", "\t", "|")
# The csv module rejects fields over 128 KiB; prepare rejects long messages later, by id.
_FIELD_LIMIT = 2**31 - 1
_NAME_IT = "name the right --encoding (often cp1252 or utf-16), or save the file as UTF-8"
_SAVE_IT = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"


def read_text(path: Path, encoding: str = "utf-8", *, remedy: str = _NAME_IT) -> str:
    """Read a whole file without its byte order mark; line ends are kept.

    Raises BadInput that names line and offset of a byte that does not fit the encoding, and the
    ``remedy``.
    """
    data = read_bytes(path)
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise BadInput(f"--encoding {encoding!r}: no such encoding: see Python's codecs") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{path.name}:{line}: byte {error.start} (0x{data[error.start]:02x}) is not "
            f"{encoding}: {remedy}"
        ) from error
    return text.removeprefix("\ufeff")


def read_edited(path: Path, encoding: str | None = None) -> str:
    """Read a file that a reviewer may have edited, in UTF-8 or else in the export's ``encoding``
    (None: the command has no such option). Raises BadInput as ``read_text``."""
    # This program writes UTF-8, but spreadsheets may save it in the encoding of the system.
    remedy = _SAVE_IT
    if encoding is not None:
        remedy += "; --encoding helps only if the export has that encoding too"
    try:
        return read_text(path, remedy=remedy)
    except BadInput:
        if encoding is None or encoding.casefold() in {"utf-8", "utf8"}:
            raise
        return read_text(path, encoding)


def read_bytes(path: Path) -> bytes:
    """Read a whole file. Raises BadInput for a missing or empty one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot read it: {error.strerror}") from error
    if not data.strip():
        raise BadInput(f"{path.name}: the file is empty")
    return data


def parse_csv(
    text: str, name: str, *, columns: Collection[str]
) -> tuple[int, list[str], Iterator[tuple[int, list[str]]]]:
    """Return the header's line number, the header, and an iterator of (line, cells) below it.

    The delimiter is the one that finds most of ``columns`` in the header, or splits it most often:
    spreadsheets use semicolons in countries with a decimal comma. Blank lines are skipped. Raises
    BadInput, also while iterating, that names the line; ``name`` is the file's.
    """
    return _parse_csv(lambda: io.StringIO(text, newline=""), name, columns)


def open_csv(
    path: Path, encoding: str, *, columns: Collection[str]
) -> tuple[int, list[str], Iterator[tuple[int, list[str]]]]:
    """Parse a file as ``parse_csv``, without holding all of it in memory. Raises BadInput as
    ``read_text``, but only when the iterator reaches the byte."""
    line, names, records = _parse_csv(lambda: _lines(path, encoding), path.name, columns)
    if not any(names):
        raise BadInput(f"{path.name}: the file is empty")
    return line, names, records


def _lines(path: Path, encoding: str) -> Iterator[str]:
    try:
        with path.open(encoding=encoding, newline="") as file:
            for first in file:
                yield first.removeprefix("\ufeff")
                break
            yield from file
    except (LookupError, UnicodeDecodeError, OSError):
        read_text(path, encoding)  # raises BadInput with the place
        raise


def _parse_csv(
    lines: Callable[[], Iterable[str]],
    name: str,
    columns: Collection[str],
) -> tuple[int, list[str], Iterator[tuple[int, list[str]]]]:
    csv.field_size_limit(_FIELD_LIMIT)
    delimiter = _sniff(lines, columns)
    records = _records(lines(), name, delimiter)
    line, header = next(records, (1, []))
    names = [name.strip() for name in header]
    return line, names, _checked(records, len(names), name, delimiter)


def _records(lines: Iterable[str], name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
    try:
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{name}:{line}: not valid CSV: {error}") from error


def _checked(
    records: Iterator[tuple[int, list[str]]], width: int, name: str, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    for line, record in records:
        if len(record) != width:
            raise BadInput(
                f"{name}:{line}: {len(record)} fields where the header has {width}: escape quotes "
                f"and {delimiter!r} in messages, or save with another delimiter"
            )
        yield line, record


def _sniff(lines: Callable[[], Iterable[str]], columns: Collection[str]) -> str:
    # Not csv.Sniffer: it counts the commas in messages too. The header is enough.
    def fit(delimiter: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(lines(), delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return len(set(columns) & {name.strip() for name in header}), len(header)

    return max(_DELIMITERS, key=fit)
