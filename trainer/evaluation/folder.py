"""A result folder that appears whole: written beside its place, then moved there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from worker.contract.digest import write_atomically


def check_target(target: Path, record_name: str) -> None:
    """Raise BadInput unless ``target`` is free or holds an earlier result of the same kind."""
    if not target.exists():
        return
    if not target.is_dir():
        raise BadInput(f"--out {target}: exists and is no directory")
    if any(target.iterdir()) and not (target / record_name).is_file():
        raise BadInput(f"--out {target}: holds other files and no {record_name}: name another")


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder to fill; move it to ``target`` at the end, in place of an earlier
    result. After an error ``target`` is what it was."""
    draft = target.with_name(f".{target.name}.draft")
    old = target.with_name(f".{target.name}.old")
    for leftover in (draft, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    draft.mkdir(parents=True)
    try:
        yield draft
        if target.exists():
            target.rename(old)
        draft.rename(target)
    finally:
        for leftover in (draft, old):
            if leftover.exists():
                shutil.rmtree(leftover)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON record for machines and curious people, atomically."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode("utf-8") + b"\n")


def read_record(path: Path, schema: str) -> dict[str, Any]:
    """Read a record of one schema. Raises BadInput."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as a result: {error}") from error
    if not isinstance(record, dict) or record.get("schema") != schema:
        raise BadInput(f"{path}: is no {schema}: make it again with this version")
    return record
