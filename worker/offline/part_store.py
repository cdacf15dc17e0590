"""Where ``classify --out`` reads messages and writes parts: folders of this machine, or buckets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from worker.common.bucket import Bucket, StoreAway, is_url
from worker.contract.digest import write_atomically
from worker.contract.records import InputFormat
from worker.errors import SettingsError
from worker.offline.message_files import MessageFile, Row, read_rows

PartFormat = Literal["jsonl", "parquet"]


def list_files(given: MessageFile) -> dict[str, tuple[MessageFile, tuple[int, int]]]:
    """Return the file, or the files of a folder or below a URL in order: by name, each with its
    size and time of change in ns. Raises SettingsError."""
    root = given.source
    if is_url(root):
        with told("--input"):
            found = Bucket(root).stamps()
            if not found:  # one object
                root, _, name = root.rpartition("/")
                found = {key: at for key, at in Bucket(root).stamps().items() if key == name}
        stamps = {f"{root.rstrip('/')}/{key}": stamp for key, stamp in found.items()}
    elif Path(root).is_dir():
        paths = (path for path in Path(root).rglob("*") if path.is_file())
        stamps = {str(path): _stamp(path) for path in paths}
    else:
        return {given.name: (replace(given, keep_broken=True), _stamp(Path(root)))}
    files = {
        file.name: (file, stamp)
        for source, stamp in sorted(stamps.items())
        if not Path(source).name.startswith((".", "_"))  # _SUCCESS of a Spark job
        for file in [replace(given, source=source, folder=root, keep_broken=True)]
    }
    if not files:
        raise SettingsError(f"--input {root}: has no files")
    return files


def rows_of(file: MessageFile, layout: InputFormat) -> Iterator[Row]:
    """Yield a file's messages as ``read_rows`` does; one in a bucket is copied first."""
    if not is_url(file.source) or file.folder is None:
        yield from read_rows(file, layout)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with told("--input"):
            Bucket(file.folder).download(file.name, path, lambda _: None)
        yield from read_rows(replace(file, source=str(path), folder=folder), layout)


class PartStore(Protocol):
    """Files, each of which appears whole or not at all. Calls raise OSError, SettingsError."""

    def names(self) -> set[str]:
        """Return the names of all files."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is none."""

    def write(self, name: str, lines: Iterable[bytes]) -> None:
        """Write a file, or replace it."""


def part_store(out: str) -> PartStore:
    """Return the folder or the bucket's prefix that ``out`` names."""
    return _BucketParts(out) if is_url(out) else _FolderParts(Path(out))


class _FolderParts:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> set[str]:
        return {path.name for path in self._root.iterdir()} if self._root.exists() else set()

    def read(self, name: str) -> bytes | None:
        path = self._root / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, lines: Iterable[bytes]) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        write_atomically(self._root / name, lines)


class _BucketParts:
    """A bucket shows an object when all of it has arrived."""

    def __init__(self, url: str) -> None:
        with told("--out"):
            self._bucket = Bucket(url)

    def names(self) -> set[str]:
        with told("--out"):
            return set(self._bucket.list())

    def read(self, name: str) -> bytes | None:
        with told("--out"):
            found = self._bucket.get(name)
        return found.data if found else None

    def write(self, name: str, lines: Iterable[bytes]) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.writelines(lines)
            file.flush()
            with told("--out"):
                self._bucket.put(name, Path(file.name))


def as_parquet(lines: Iterable[bytes]) -> bytes:
    """Return records (JSON) as a Parquet file: the columns that a query needs, and the record."""
    import pyarrow as pa
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    for line in lines:
        record = json.loads(line)
        review = record.get("review")
        rows.append({**record, "review": review and review["needed"], "record": line.decode()})
    text = dict.fromkeys(("id", "message_id", "label", "reason", "error", "record"), pa.string())
    schema = pa.schema({**text, "confidence": pa.float64(), "review": pa.bool_()})
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, schema), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@contextmanager
def told(option: str) -> Iterator[None]:
    """Raise SettingsError for a bucket that does not answer, or an object that is gone."""
    try:
        yield
    except (StoreAway, FileNotFoundError) as error:
        raise SettingsError(f"{option} {str(error)[:400]}") from None


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise SettingsError(f"--input {path}: not readable: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns
