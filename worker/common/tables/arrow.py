"""Open Parquet files and Arrow streams. Classes that Hugging Face datasets saved have their names.

The only file that imports pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from worker.common.encodings import Opener
from worker.common.tables.table import (
    Format,
    Found,
    NotText,
    Table,
    TableError,
    Tally,
    require,
    to_text,
)

_FEATURES = b"huggingface"
"""The key under which Hugging Face datasets 5 stores its features in an Arrow schema's metadata."""

_BATCH_ROWS = 4096


def open_arrow(opener: Opener, name: str, kind: Format) -> Table:
    """Open a file. Fields of structs are columns, joined by dots. Raises TableError."""
    require(name, "pyarrow", "trainer", "reading it")
    with _damage(name, kind), opener() as file:
        schema = _schema(file, kind)
        names = tuple(_flatten(schema.empty_table()).column_names)
    classes = _label_names(schema.metadata)
    if doubled := sorted({each for each in names if names.count(each) > 1}):
        raise TableError(f"{name}: the column {doubled[0]!r} occurs twice: rename one")
    roots = set(schema.names)

    def read(columns: Sequence[str], tally: Tally) -> Iterator[tuple[int, list[str]]]:
        needed = dict.fromkeys(each if each in roots else each.split(".")[0] for each in columns)
        number = 0
        with opener() as file:
            batches = _batches(file, kind, list(needed))
            while True:
                with _damage(name, kind):
                    if (batch := next(batches, None)) is None:
                        return
                    values = _values(batch, columns)
                for row in values:
                    number += 1
                    try:
                        yield (
                            number,
                            [
                                _class(value, classes.get(column), tally, number)
                                for column, value in zip(columns, row, strict=True)
                            ],
                        )
                    except NotText:
                        tally.add("type", number)

    return Table(name, names, Found(kind), [], read)


@contextmanager
def _damage(name: str, kind: Format) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{name}: not a complete {kind.capitalize()} file: {error}") from error


def _schema(file: BinaryIO, kind: Format) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    return pa.ipc.open_stream(file).schema if kind == "arrow" else parquet.read_schema(file)


def _batches(file: BinaryIO, kind: Format, columns: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    if kind == "arrow":
        yield from pa.ipc.open_stream(file)
    else:
        yield from parquet.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=columns)


def _values(batch: Any, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Return the rows of a batch."""
    import pyarrow as pa

    table = _flatten(pa.Table.from_batches([batch])).select(list(columns))
    return zip(*(_to_microseconds(column).to_pylist() for column in table.columns), strict=True)


def _flatten(table: Any) -> Any:
    """Return a table with structs as one column for each field, joined by dots."""
    import pyarrow as pa

    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table


def _to_microseconds(column: Any) -> Any:
    """Truncate times to microseconds, since Python has none finer."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    return column


def _class(value: Any, names: Sequence[str] | None, tally: Tally, row: int) -> str:
    """Return a value as a cell, a class number as the class's name."""
    if names is None or value is None:
        return to_text(value)
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    tally.add("class", row)
    return ""


def _label_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    try:
        features = json.loads((metadata or {})[_FEATURES])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # not written by datasets, or in an unknown form: numbers stay
