"""Rows of a Parquet file. The only file that imports pyarrow."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from trainer.dataset.cells import label_text, message_text
from trainer.dataset.columns import Chosen, Columns, choose_columns
from trainer.dataset.row import Row
from trainer.dataset.text_file import read_bytes
from trainer.errors import BadInput


def read_parquet(path: Path, wanted: Columns) -> tuple[list[Row], Chosen]:
    """Read the four columns of a Parquet file and no others. Raises BadInput when the file is
    cut short or a value has the wrong type."""
    data = read_bytes(path)
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        chosen = choose_columns(wanted, list(file.schema_arrow.names), path.name)
        fields = chosen.describe()
        table = file.read(columns=[name for name in fields.values() if name])
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path.name}: not a whole Parquet file: {error}") from error
    blank: list[None] = [None] * table.num_rows
    columns = {
        field: table.column(name).to_pylist() if name else blank for field, name in fields.items()
    }
    rows = []
    for number, (message, label, id_, sublabel) in enumerate(
        zip(columns["message"], columns["label"], columns["id"], columns["sublabel"], strict=True),
        start=1,
    ):
        where = f"{path.name} row {number}"
        rows.append(
            Row(
                id=label_text(id_, where, chosen.id or ""),
                message=message_text(message, where, chosen.message),
                label=label_text(label, where, chosen.label),
                sublabel=label_text(sublabel, where, chosen.sublabel or "") or None,
                where=where,
            )
        )
    if not rows:
        raise BadInput(f"{path.name}: holds no rows")
    return rows, chosen
