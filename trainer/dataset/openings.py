"""Who has looked at a hold-out: a ledger beside the dataset folders, by the digest of its texts.

Each opening is written down twice: in the dataset's own manifest and in ``holdout-openings.jsonl``
in the folder that the dataset's folder is in. The same hold-out prepared again is the same
hold-out, so its openings count on: ``prepare`` looks for them in that ledger, in the manifests of
the datasets beside the new one, and in those that it is told of.

The same hold-out has the same texts, under whatever ids and labels: one that was corrected, or
whose export came in another order, has been seen as often.

What it cannot see: datasets that are neither there nor named, copies on other machines, and a
hold-out that has one message more or less. It holds no text.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.contract.timestamps import rfc3339_now

LEDGER = "holdout-openings.jsonl"
_MANIFEST = "dataset.json"
_HOLDOUT_FILE = "holdout.jsonl"

Opening = Mapping[str, Any]
"""``id``, ``at``, ``purpose`` and ``subject``."""


def make_opening(purpose: str, subject: str) -> dict[str, Any]:
    """Return an opening that is now."""
    return {
        "id": uuid.uuid4().hex,
        "at": rfc3339_now(),
        "purpose": purpose,
        "subject": subject,
    }


def holdout_texts(record: Mapping[str, Any]) -> str:
    """Return the digest of a hold-out's texts, of a manifest. Raises KeyError for what is no
    manifest."""
    digest: str = record["files"][_HOLDOUT_FILE]["texts_sha256"]
    return digest


def note_opening(dataset: Path, texts_sha256: str, opening: Opening) -> None:
    """Append an opening to the ledger beside a dataset's folder, and bring it to the disk.

    Where that folder cannot be written (a volume mounted read-only but for the dataset) there is
    no ledger, and the manifest alone knows. Raises OSError where there is one that cannot be
    written.
    """
    path = _ledger(dataset)
    if not path.exists() and not os.access(path.parent, os.W_OK):
        return
    line = json.dumps({"texts_sha256": texts_sha256, "dataset": dataset.name, **opening})
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # by a kill, in mid-line
        os.write(handle, ("\n" * cut + line + "\n").encode("utf-8"))
        os.fsync(handle)
    finally:
        os.close(handle)


def known_openings(dataset: Path, texts_sha256: str, own: Iterable[Opening]) -> tuple[Opening, ...]:
    """Return the openings of a dataset's manifest and those of the ledger beside it, oldest first,
    each once. Raises OSError."""
    return _merge(own, _read_ledger(_ledger(dataset), texts_sha256))


def earlier_openings(
    out: Path, texts_sha256: str, earlier: Sequence[Path] = ()
) -> tuple[Opening, ...]:
    """Return the openings of a hold-out that is about to be prepared again as ``out``: of the
    ledger there and beside ``earlier``, and of the datasets there and ``earlier`` themselves."""
    beside = out.resolve().parent
    datasets = [*earlier, *(sorted(beside.iterdir()) if beside.is_dir() else ())]
    return _merge(
        _read_ledger(beside / LEDGER, texts_sha256),
        *(_read_ledger(_ledger(dataset), texts_sha256) for dataset in earlier),
        *(_of_dataset(dataset, texts_sha256) for dataset in datasets),
    )


def _ledger(dataset: Path) -> Path:
    return dataset.resolve().parent / LEDGER


def _of_dataset(directory: Path, texts_sha256: str) -> Iterator[Opening]:
    """Yield a dataset's openings if its hold-out is the one. A neighbour that is none, or that is
    damaged, has nothing to tell: it must not stop a preparation."""
    try:
        record = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        if holdout_texts(record) == texts_sha256:
            yield from _sound(record["holdout_openings"])
    except (OSError, ValueError, KeyError, TypeError):
        return


def _read_ledger(path: Path, texts_sha256: str) -> Iterator[Opening]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
        except ValueError:  # a line that a kill cut
            continue
        if isinstance(entry, dict) and entry.pop("texts_sha256", None) == texts_sha256:
            yield from _sound([entry])


def _sound(entries: Any) -> Iterator[Opening]:
    for entry in entries:
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("id", "at")):
            yield entry


def _merge(*groups: Iterable[Opening]) -> tuple[Opening, ...]:
    found: dict[Any, Opening] = {}
    for group in groups:
        for opening in group:
            found.setdefault(opening["id"], {k: v for k, v in opening.items() if k != "dataset"})
    return tuple(sorted(found.values(), key=lambda opening: str(opening["at"])))
