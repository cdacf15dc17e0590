"""Parquet and Arrow files, column by column. The only file that imports pyarrow."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.dataset.text_files import read_bytes
from trainer.errors import BadInput

_FEATURES = b"huggingface"
"""Where Hugging Face datasets 5 keeps what its columns mean, in an Arrow schema's metadata."""


@dataclass(frozen=True, slots=True)
class Columns:
    """An opened file: the names of its columns, and ``read``, which returns some of them as one
    dict a row."""

    names: tuple[str, ...]
    read: Callable[[Sequence[str]], list[dict[str, Any]]]


def open_parquet(path: Path, name: str) -> Columns:
    """Open a Parquet file; ``name`` stands in errors. Raises BadInput, also from ``read``, when
    the file is cut short."""
    # pyarrow is large and not needed for the other formats.
    import pyarrow as pa
    from pyarrow import parquet

    damaged = (pa.ArrowException, OSError)
    data = read_bytes(path)
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        schema = file.schema_arrow
    except damaged as error:
        raise BadInput(f"{name}: not a whole Parquet file: {error}") from error

    def read(columns: Sequence[str]) -> list[dict[str, Any]]:
        try:
            table = _to_microseconds(file.read(columns=list(columns)))
        except damaged as error:
            raise BadInput(f"{name}: not a whole Parquet file: {error}") from error
        return _with_label_names(table.to_pylist(), schema.metadata, name)

    return Columns(tuple(schema.names), read)


def open_arrow(path: Path, name: str) -> Columns:
    """Open an Arrow file in the streaming format, as ``Dataset.save_to_disk`` writes it.

    As ``open_parquet`` otherwise."""
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(io.BytesIO(read_bytes(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{name}: not a whole Arrow file: {error}") from error

    def read(columns: Sequence[str]) -> list[dict[str, Any]]:
        rows = _to_microseconds(table.select(list(columns))).to_pylist()
        return _with_label_names(rows, table.schema.metadata, name)

    return Columns(tuple(table.schema.names), read)


def _to_microseconds(table: Any) -> Any:
    """Python's times are to the microsecond; what is finer is cut off."""
    import pyarrow as pa

    for at, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            times = table[field.name].cast(pa.timestamp("us", tz=field.type.tz), safe=False)
            table = table.set_column(at, field.name, times)
    return table


def _with_label_names(
    rows: list[dict[str, Any]], metadata: dict[bytes, bytes] | None, name: str
) -> list[dict[str, Any]]:
    """Put the names of a ``ClassLabel`` column in the place of its numbers: numbers mean nothing
    beside the order that the other tool happened to use."""
    for column, names in _label_names(metadata).items():
        for number, row in enumerate(rows, start=1):
            code = row.get(column)
            if code is None:
                continue
            if not isinstance(code, int) or not 0 <= code < len(names):
                raise BadInput(
                    f"{name} row {number}: {column!r} has no name for its class; there are "
                    f"{len(names)}, and -1 stands for a row without a label: leave such rows out"
                )
            row[column] = names[code]
    return rows


def _label_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    try:
        features = json.loads((metadata or {})[_FEATURES])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # another tool's file, or metadata of a form that is not known: numbers stay
