"""Record files: JSON and JSON Lines, each validated by one model and written atomically.

A record holds figures, labels and ids, never a message's text. Keys that are not in its model are
dropped on reading, so that text that was added to a file is not passed on.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.errors import BadInput
from worker.contract.digest import write_atomically

PRIVATE = 0o640
"""Permissions of a file that contains messages: owner and group only."""


_MOST_PROBLEMS = 3


def read_toml(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file that a user wrote. Raises BadInput; ``remedy`` is for one that cannot be
    opened."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}: {remedy}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: is not TOML: {error}") from error


class Record(BaseModel):
    """A frozen JSON object with strict types: text is not read as a number, nor a boolean as a
    count. The model of a whole file has its format in ``schema_id``, the file's key ``schema``."""

    # populate_by_name: the key "schema" is a method of pydantic's BaseModel, so the field has
    # another name.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON, with the file's keys."""
        return self.model_dump(mode="json", by_alias=True)


RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, slots=True)
class RecordFile(Generic[RecordT]):
    """A file that holds one record: its name, its model, and the command that writes it."""

    name: str
    model: type[RecordT]
    command: str

    def read(self, folder: Path) -> RecordT:
        """Read the file in ``folder``. Raises BadInput that names file, problem and command."""
        path = folder / self.name
        return self.parse(_read_bytes(path, self.command), path)

    def read_if_present(self, folder: Path) -> RecordT | None:
        """Read the file, or return None where there is none. Raises BadInput."""
        return self.read(folder) if (folder / self.name).is_file() else None

    def parse(self, data: bytes, path: Path) -> RecordT:
        """Validate a file's content; ``path`` is for the messages. Raises BadInput."""
        return self.validate(_load_json(data, str(path), self.command), path)

    def validate(self, value: Any, path: Path) -> RecordT:
        """Validate plain JSON; ``path`` is for errors. Raises BadInput."""
        schema = value.get("schema") if isinstance(value, dict) else None
        wanted = self.model.model_fields["schema_id"].default
        if isinstance(value, dict) and schema != wanted:
            raise BadInput(
                f"{path}: its schema is {schema!r}, not {wanted!r}: make it again with "
                f"{self.command}"
            )
        return _validate(self.model, value, str(path), self.command)

    def write(self, folder: Path, record: RecordT) -> None:
        """Write the file into ``folder``: readers see the earlier one or the whole new one."""
        write_json(folder / self.name, record.to_json())


@dataclass(frozen=True, slots=True)
class LinesFile(Generic[RecordT]):
    """A JSON Lines file, a record a line: its name, its model, and the command that writes it."""

    name: str
    model: type[RecordT]
    command: str

    def read(self, folder: Path) -> tuple[RecordT, ...]:
        """Read every line of the file in ``folder``. Raises BadInput with the line at fault."""
        path = folder / self.name
        return self.parse(_read_bytes(path, self.command), path)

    def read_if_present(self, folder: Path) -> tuple[RecordT, ...] | None:
        """Read the file, or return None where there is none. Raises BadInput."""
        return self.read(folder) if (folder / self.name).is_file() else None

    def parse(self, data: bytes, path: Path) -> tuple[RecordT, ...]:
        """Validate a file's content; ``path`` is for the messages. Raises BadInput."""
        records = []
        for number, line in enumerate(data.split(b"\n"), start=1):
            if line.strip():
                where = f"{path}:{number}"
                value = _load_json(line, where, self.command)
                records.append(_validate(self.model, value, where, self.command))
        return tuple(records)

    def write(self, folder: Path, records: Iterable[RecordT]) -> None:
        """Write the file into ``folder``: readers see the earlier one or the whole new one."""
        write_atomically(folder / self.name, encode_lines(records))


def encode_lines(records: Iterable[Record]) -> bytes:
    """Return records as JSON Lines: UTF-8, one a line."""
    lines = (
        json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False) for record in records
    )
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    # allow_nan=False: NaN is not JSON, and readers in other languages would fail on it.
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def check_target(target: Path, name: str) -> None:
    """Raise BadInput unless ``target`` is free or has an earlier result, a file ``name``."""
    if not target.exists():
        return
    if not target.is_dir():
        raise BadInput(f"--out {target}: exists and is not a directory: name another")
    if any(target.iterdir()) and not (target / name).is_file():
        raise BadInput(f"--out {target}: has other files and no {name}: name another")


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder to fill, and move it to ``target`` at the end, replacing an earlier
    result. An error leaves ``target`` unchanged."""
    draft = target.with_name(f".{target.name}.draft")
    old = target.with_name(f".{target.name}.old")
    for leftover in (draft, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    draft.mkdir(parents=True)
    try:
        yield draft
        # A rename cannot replace a directory with files in it.
        if target.exists():
            target.rename(old)
        draft.rename(target)
    finally:
        for leftover in (draft, old):
            if leftover.exists():
                shutil.rmtree(leftover)


def _read_bytes(path: Path, command: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}: make it with {command}") from error


def _load_json(data: bytes, where: str, command: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON ({error}): make it again with {command}") from error


def _validate(model: type[RecordT], value: Any, where: str, command: str) -> RecordT:
    # As text, because only there pydantic's strict mode accepts a JSON array for a tuple. Half a
    # surrogate pair, which UTF-8 cannot hold, becomes a question mark.
    data = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        more = len(problems) - _MOST_PROBLEMS
        shown = "; ".join(problems[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
        raise BadInput(f"{where}: {shown}: make it again with {command}") from error
