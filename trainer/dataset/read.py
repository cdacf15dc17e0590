"""Read exports of any of the three formats, and say what was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.dataset.columns import Chosen, Columns
from trainer.dataset.read_csv import read_csv
from trainer.dataset.read_jsonl import read_jsonl
from trainer.dataset.row import Row
from trainer.errors import BadInput
from worker.contract.digest import sha256_file
from worker.contract.text import message_sha256, normalize

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True, slots=True)
class Source:
    """One file that was read. ``name`` is without its folder: a dataset says where its rows come
    from, not how somebody's disk is laid out."""

    name: str
    sha256: str
    rows: int
    columns: Chosen


def read_source(
    path: Path, wanted: Columns, *, encoding: str = "utf-8", delimiter: str | None = None
) -> tuple[list[Row], Source]:
    """Read one file by its suffix. Raises BadInput."""
    kind = FORMATS.get(path.suffix.casefold())
    if kind is None:
        raise BadInput(f"{path}: cannot tell the format: the name must end with {_suffixes()}")
    if path.is_dir():
        raise BadInput(f"{path}: is a folder, not a file")
    if kind == "csv":
        rows, chosen = read_csv(path, wanted, encoding=encoding, delimiter=delimiter)
    elif kind == "jsonl":
        rows, chosen = read_jsonl(path, wanted, encoding=encoding)
    else:
        # pyarrow is large and not needed for the other formats.
        from trainer.dataset.read_parquet import read_parquet

        rows, chosen = read_parquet(path, wanted)
    return rows, Source(path.name, sha256_file(path), len(rows), chosen)


def complete_ids(rows: Sequence[Row]) -> list[Row]:
    """Give every row without an id one that is made from its message.

    Copies of a message get ``-2``, ``-3``, in the order of their labels, so that the ids do not
    depend on the order of the lines. Raises BadInput that names the rows of a doubled id.
    """
    order = sorted(
        (place for place, row in enumerate(rows) if not row.id),
        key=lambda place: (normalize(rows[place].message), rows[place].label),
    )
    made: dict[int, str] = {}
    seen: Counter[str] = Counter()
    for place in order:
        stem = "m-" + message_sha256(rows[place].message)[:16]
        seen[stem] += 1
        made[place] = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
    complete = [
        replace(row, id=made[place]) if place in made else row for place, row in enumerate(rows)
    ]
    _refuse_doubled(complete)
    return complete


def _refuse_doubled(rows: Sequence[Row]) -> None:
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row.id, []).append(row.where)
    doubled = {id_: wheres for id_, wheres in places.items() if len(wheres) > 1}
    if doubled:
        id_, wheres = next(iter(doubled.items()))
        rest = f", and {len(doubled) - 1} more ids so" if len(doubled) > 1 else ""
        raise BadInput(
            f"{len(wheres)} rows have the id {id_!r}: {', '.join(wheres[:5])}{rest}: "
            "ids must be unique; name another --id-column"
        )


def _suffixes() -> str:
    return ", ".join(FORMATS)
