"""The dataset folder with its sealed hold-out, and the rows that become one.

Each opening of the hold-out is recorded in the dataset's manifest and in a ledger,
``holdout-openings.jsonl``, in the parent folder. A hold-out is identified by its texts, so
preparing it again does not reset the count, even with other ids, corrected labels or another order
of lines. ``prepare`` looks for earlier openings in the ledger, in the manifests of the neighbouring
datasets, and in the datasets given by ``--earlier``.

Openings of datasets elsewhere, of copies on other machines, and of a hold-out with one message more
or less are not found; only a version that ``propose`` makes keeps those of the dataset before it.
The ledger holds no text.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from itertools import count, groupby
from pathlib import Path
from typing import Any

from trainer.artifacts.files import PRIVATE
from trainer.errors import BadInput
from worker.contract import Taxonomy
from worker.contract.digest import sha256_bytes, sha256_file, sha256_json, write_atomically
from worker.contract.exchange import LabelSource
from worker.contract.text import message_sha256, normalize
from worker.contract.timestamps import rfc3339_now

TRAIN, VALIDATION, HOLDOUT = "train", "validation", "holdout"
SPLITS = (TRAIN, VALIDATION, HOLDOUT)
"""Training; validation, for choices such as the epoch; hold-out, for the figures."""


@dataclass(frozen=True, slots=True)
class LabelOrigin:
    """Where a label comes from, and the version of the labelling guideline, if known."""

    source: LabelSource = "export"
    guideline: str | None = None

    @property
    def words(self) -> str:
        """The name under which the origin is counted."""
        return f"{self.source}, guideline {self.guideline}" if self.guideline else self.source


EXPORT = LabelOrigin()


@dataclass(frozen=True, slots=True)
class Example:
    """A message with its label, and a sublabel if the data has one. ``id`` is unique in its
    dataset; predictions and reports name messages by id and hold no text."""

    id: str
    message: str
    label: str
    sublabel: str | None = None

    @property
    def key(self) -> str:
        """The normalized, case-folded message: equal for copies."""
        return normalize(self.message).casefold()


@dataclass(frozen=True, slots=True)
class Row:
    """A message as a file holds it, before it is in a dataset.

    ``id`` is empty until one is made from the content. ``where`` is file and line (or row), for
    error messages. ``given`` marks rows of the ``--holdout`` file. ``time`` (aware or naive, as
    written), ``group`` and ``language`` decide the split and are not kept in the dataset. An
    ``origin`` of None means the file's. ``chosen``: a reviewer labelled it because it looked
    doubtful or instructive, so it is not a random sample. ``taught`` is the teacher's label of a
    message that a reviewer labelled too (empty: the teacher gave none; None: not known). ``number``
    is set by ``number_copies``.
    """

    id: str
    message: str
    label: str
    sublabel: str | None
    where: str
    given: bool = False
    time: datetime | None = None
    group: str = ""
    language: str = ""
    origin: LabelOrigin | None = None
    chosen: bool = False
    taught: str | None = None
    number: int = -1

    @property
    def folded(self) -> str:
        """``Example.key``, for a message that is already normalized."""
        return self.message.casefold()

    @property
    def key(self) -> int:
        """The rank of the folded message among all: equal for copies, and a million ranks take
        less memory than a million texts."""
        assert self.number >= 0, "rows are numbered before they are compared"
        return self.number

    @property
    def by_teacher(self) -> bool:
        """Whether another model gave the label."""
        return self.origin is not None and self.origin.source == "teacher"

    @property
    def example(self) -> Example:
        """The row as the dataset folder holds it."""
        return Example(self.id, self.message, self.label, self.sublabel)


def complete_ids(rows: Sequence[Row]) -> list[Row]:
    """Give each row without an id one that is derived from its message.

    Copies of a message get the suffixes ``-2``, ``-3``, in the order of their labels and other
    columns, so that ids do not depend on the order of lines.
    """
    stems = {
        place: "m-" + message_sha256(row.message)[:16]
        for place, row in enumerate(rows)
        if not row.id
    }
    made: dict[int, str] = {}
    seen: Counter[str] = Counter()
    for place in sorted(stems, key=lambda place: (stems[place], *_content(rows[place]))):
        stem = stems[place]
        seen[stem] += 1
        made[place] = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
    return [
        replace(row, id=made[place]) if place in made else row for place, row in enumerate(rows)
    ]


def unique_ids(rows: Sequence[Row]) -> tuple[list[Row], list[str], dict[str, list[str]]]:
    """Return the rows without those that repeat another in its id and everything else; where those
    are; and for each id of different rows where these are.

    The latter get the suffixes ``-2``, ``-3`` in the order of their content, so that ids do not
    depend on the order of lines; rows of a given hold-out keep theirs. Rows without an id are not
    compared: they may be messages that were sent several times.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.id:
            places[row.id].append(place)
    made: dict[int, str] = {}
    repeated: list[int] = []
    several: dict[str, list[str]] = {}
    for id_, same in places.items():
        if len(same) == 1:
            continue
        different: dict[tuple[str, ...], int] = {}
        repeated += [
            place for place in same if different.setdefault(_content(rows[place]), place) != place
        ]
        if len(different) > 1:
            several[id_] = [rows[place].where for place in different.values()]
        given = {content for content, place in different.items() if rows[place].given}
        ordered = [*sorted(given), *sorted(different.keys() - given)]
        free = (name for at in count(2) if (name := f"{id_}-{at}") not in places)
        made |= {different[content]: next(free) for content in ordered[1:]}
    again = set(repeated)
    kept = [
        replace(row, id=made[place]) if place in made else row
        for place, row in enumerate(rows)
        if place not in again
    ]
    return kept, [rows[place].where for place in sorted(repeated)], several


def _content(row: Row) -> tuple[str, ...]:
    """Return everything that distinguishes a row from its copies."""
    return (
        row.label,
        row.sublabel or "",
        row.time.isoformat() if row.time else "",
        row.group,
        row.language,
        repr((row.origin, row.chosen, row.taught)),
        repr(row.given),
        row.message,
    )


_PREFIX_CHARS = 32


def number_copies(rows: list[Row]) -> list[Row]:
    """Set each row's ``number``, in place, and return the first row of each number."""
    # Sort by short prefixes first: sorting by whole folded messages would copy the export.
    order = sorted(range(len(rows)), key=lambda at: rows[at].folded[:_PREFIX_CHARS])
    firsts: list[Row] = []
    for _, run in groupby(order, key=lambda at: rows[at].folded[:_PREFIX_CHARS]):
        last = None
        for at in sorted(run, key=lambda at: rows[at].folded):
            new = rows[at].folded != last
            last = rows[at].folded
            rows[at] = replace(rows[at], number=len(firsts) - 1 + new)
            if new:
                firsts.append(rows[at])
    return firsts


MANIFEST = "dataset.json"
DATASET_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Dataset:
    """An opened dataset, without its hold-out: see ``open_holdout``.

    ``digest`` identifies the dataset. It covers the taxonomy, every message and label, and how they
    were chosen, but not the input files: the same rows in another order or format make the same
    dataset. ``record`` is the manifest.
    """

    directory: Path
    name: str
    digest: str
    taxonomy: Taxonomy
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    record: Mapping[str, Any]

    @property
    def holdout_sha256(self) -> str:
        """SHA-256 of the hold-out's file."""
        digest: str = self.record["files"][_file(HOLDOUT)]["sha256"]
        return digest

    @property
    def holdout_texts_sha256(self) -> str:
        """SHA-256 of the hold-out's texts, under which its openings are counted."""
        digest: str = self.record["files"][_file(HOLDOUT)]["texts_sha256"]
        return digest

    @property
    def languages(self) -> dict[str, int]:
        """Messages by language, of a sample."""
        return dict(self.record.get("languages", {}))

    @property
    def passages(self) -> frozenset[int]:
        """Passages that recur in many messages, for ``trainer.dataset.near_duplicates``."""
        return frozenset(self.record.get("passages", ()))

    @property
    def redaction(self) -> str | None:
        """Name of the rules by which personal data was redacted, or None."""
        redaction: str | None = self.record["redaction"]
        return redaction


def write_dataset(
    directory: Path,
    *,
    name: str,
    taxonomy: Taxonomy,
    splits: Mapping[str, Sequence[Example]],
    redaction: str | None = None,
    openings: Sequence[Opening] = (),
    **facts: Any,
) -> Dataset:
    """Write the three files and then the manifest, and return the dataset.

    ``splits`` maps each of ``SPLITS`` to its examples; ``openings`` are those of the same hold-out
    in earlier datasets; ``facts`` (JSON) are added to the manifest.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = {}
    for split in SPLITS:
        counts = Counter(example.label for example in splits[split])
        files[_file(split)] = {
            **write_lines(directory / _file(split), splits[split]),
            "examples": len(splits[split]),
            "per_label": {label: counts[label] for label in taxonomy.names},
        }
    files[_file(HOLDOUT)]["texts_sha256"] = texts_sha256(splits[HOLDOUT])
    record: dict[str, Any] = {
        "schema_version": DATASET_SCHEMA,
        "name": name,
        "created_at": rfc3339_now(),
        "taxonomy": taxonomy.to_dict(),
        "redaction": redaction,
        "files": files,
        **facts,
    }
    record["digest"] = _digest(record)
    # Last: a folder without a manifest is not a dataset, so a killed writer leaves none behind.
    _write_manifest(directory, record | {"holdout_openings": list(openings)})
    return Dataset(
        directory,
        name,
        record["digest"],
        taxonomy,
        tuple(splits[TRAIN]),
        tuple(splits[VALIDATION]),
        read_manifest(directory),
    )


def open_dataset(directory: Path) -> Dataset:
    """Read a dataset and verify every digest, that of the sealed hold-out's file included. Raises
    BadInput that names the file."""
    record = read_manifest(directory)
    for split in SPLITS:
        path = directory / _file(split)
        try:
            found = sha256_file(path)
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}: prepare the dataset again") from error
        if found != record["files"][path.name]["sha256"]:
            raise BadInput(f"{path}: altered since it was prepared: prepare the dataset again")
    return Dataset(
        directory,
        record["name"],
        record["digest"],
        Taxonomy.from_dict(record["taxonomy"]),
        _read_split(directory, TRAIN),
        _read_split(directory, VALIDATION),
        record,
    )


def open_holdout(dataset: Dataset, *, purpose: str, subject: str) -> tuple[Example, ...]:
    """Record the opening (time, purpose, and subject: an adapter's digest, a candidate's name),
    then return the hold-out.

    Openings at the same time are all recorded. Raises BadInput if the file was altered, and
    OSError, without reading the hold-out, if the opening cannot be recorded.
    """
    # Counted, because choices get tuned to a hold-out that is opened often: its figures flatter.
    opening = {
        "id": uuid.uuid4().hex,
        "at": rfc3339_now(),
        "purpose": purpose,
        "subject": subject,
    }
    with _alone(dataset.directory):
        record = read_manifest(dataset.directory)
        if record["digest"] != dataset.digest:
            raise BadInput(f"{dataset.directory}: was replaced by another dataset: start again")
        record["holdout_openings"] = [*record["holdout_openings"], opening]
        _write_manifest(dataset.directory, record)
    note_opening(dataset.directory, dataset.holdout_texts_sha256, opening)
    path = dataset.directory / _file(HOLDOUT)
    if sha256_file(path) != record["files"][path.name]["sha256"]:
        raise BadInput(f"{path}: altered since it was prepared: prepare the dataset again")
    return _read_split(dataset.directory, HOLDOUT)


def count_openings(dataset: Dataset) -> int:
    """Return how often the hold-out has been opened so far."""
    return len(list_openings(dataset))


def list_openings(dataset: Dataset) -> tuple[Opening, ...]:
    """Return the hold-out's openings so far, oldest first."""
    own = read_manifest(dataset.directory)["holdout_openings"]
    ledger = _ledger(dataset.directory)
    return merge_openings(own, _read_ledger(ledger, dataset.holdout_texts_sha256))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two processes do not overwrite each other's opening."""
    # flock and not a lock file: the kernel releases it if the process is killed.
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def to_lines(examples: Iterable[Example]) -> bytes:
    """Return examples in the form of a split's file: UTF-8, one JSON object a line."""
    return "".join(_line(example) for example in examples).encode("utf-8")


def write_lines(path: Path, examples: Iterable[Example]) -> dict[str, Any]:
    """Write a split's file line by line; return its ``sha256`` and ``bytes``."""
    digest, size = sha256(), 0

    def lines() -> Iterator[bytes]:
        nonlocal size
        for example in examples:
            line = _line(example).encode("utf-8")
            digest.update(line)
            size += len(line)
            yield line

    write_atomically(path, lines(), mode=PRIVATE)
    return {"sha256": digest.hexdigest(), "bytes": size}


def texts_sha256(examples: Iterable[Example]) -> str:
    """Return the digest of the texts alone, independent of order, ids, labels and case."""
    keys = (example.key.encode("utf-8", "surrogatepass") for example in examples)
    return sha256_bytes("\n".join(sorted(map(sha256_bytes, keys))).encode("ascii"))


def _file(split: str) -> str:
    return f"{split}.jsonl"


def _line(example: Example) -> str:
    record = {"id": example.id, "instruction": example.message, "response": example.label}
    if example.sublabel is not None:
        record["sublabel"] = example.sublabel
    return json.dumps(record, ensure_ascii=False) + "\n"


def _read_split(directory: Path, split: str) -> tuple[Example, ...]:
    text = (directory / _file(split)).read_text(encoding="utf-8")
    return tuple(_example(json.loads(line)) for line in text.split("\n") if line)


def _example(record: Mapping[str, Any]) -> Example:
    return Example(record["id"], record["instruction"], record["response"], record.get("sublabel"))


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return a dataset's manifest after verifying its digest. Raises BadInput."""
    path = directory / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path}: not a finished dataset (clerk-trainer prepare makes one): {error}"
        ) from error
    if not isinstance(record, dict) or record.get("schema_version") != DATASET_SCHEMA:
        raise BadInput(f"{path}: not a dataset of version {DATASET_SCHEMA}: prepare it again")
    if record.get("digest") != _digest(record):
        raise BadInput(f"{path}: altered since it was prepared: prepare the dataset again")
    return record


def read_extra_lines(dataset: Dataset, name: str) -> list[dict[str, Any]] | None:
    """Return the objects of an extra JSON Lines file, or None if the manifest lists no such file.

    Raises BadInput if the file is missing or was altered.
    """
    file = (dataset.record.get("extra_files") or {}).get(name)
    if file is None:
        return None
    path = dataset.directory / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}: prepare the dataset again") from error
    if sha256_bytes(data) != file["sha256"]:
        raise BadInput(f"{path}: altered since it was prepared: prepare the dataset again")
    # split, because splitlines also cuts at U+2028 and other marks that an id may contain.
    return [json.loads(line) for line in data.decode("utf-8").split("\n") if line]


def _write_manifest(directory: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomically(directory / MANIFEST, text.encode("utf-8"))


def _digest(record: Mapping[str, Any]) -> str:
    """Return the dataset's identity: its content, but not when it was made, from which files, with
    which options, or who opened it."""
    without = {
        "digest",
        "holdout_openings",
        "created_at",
        "sources",
        "holdout_source",
        "label_map",
        "options",
    }
    held = {key: value for key, value in record.items() if key not in without}
    if "made" in (decisions := record.get("decisions") or {}):
        held["decisions"] = decisions["made"]
    return sha256_json(held)


LEDGER = "holdout-openings.jsonl"

Opening = Mapping[str, Any]
"""``id``, ``at``, ``purpose`` and ``subject``."""


def note_opening(dataset: Path, texts_sha256: str, opening: Opening) -> None:
    """Append an opening to the ledger next to a dataset's folder, and fsync it.

    If there is no ledger and the parent folder is not writable (a dataset at the root of its
    volume), only the manifest records the opening. Raises OSError if an existing ledger cannot be
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
        cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # a process killed in mid-line
        os.write(handle, ("\n" * cut + line + "\n").encode("utf-8"))
        os.fsync(handle)
    finally:
        os.close(handle)


def earlier_openings(
    out: Path, texts_sha256: str, earlier: Sequence[Path] = ()
) -> tuple[Opening, ...]:
    """Return the known openings of a hold-out that is being prepared again as ``out``: from the
    ledgers and datasets next to ``out`` and in ``earlier``."""
    parent = out.resolve().parent
    datasets = [*earlier, *(sorted(parent.iterdir()) if parent.is_dir() else ())]
    return merge_openings(
        _read_ledger(parent / LEDGER, texts_sha256),
        *(_read_ledger(_ledger(dataset), texts_sha256) for dataset in earlier),
        *(_of_dataset(dataset, texts_sha256) for dataset in datasets),
    )


def _ledger(dataset: Path) -> Path:
    return dataset.resolve().parent / LEDGER


def _of_dataset(directory: Path, texts_sha256: str) -> Iterator[Opening]:
    """Yield a dataset's openings if it has this hold-out. A neighbour that is damaged or is not a
    dataset is ignored: it must not stop ``prepare``."""
    try:
        record = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if record["files"][_file(HOLDOUT)]["texts_sha256"] == texts_sha256:
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
        except ValueError:  # a line cut off by a kill
            continue
        if isinstance(entry, dict) and entry.pop("texts_sha256", None) == texts_sha256:
            yield from _sound([entry])


def _sound(entries: Any) -> Iterator[Opening]:
    for entry in entries:
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("id", "at")):
            yield entry


def merge_openings(*groups: Iterable[Opening]) -> tuple[Opening, ...]:
    """Return each opening once, oldest first."""
    found: dict[Any, Opening] = {}
    for group in groups:
        for opening in group:
            found.setdefault(opening["id"], {k: v for k, v in opening.items() if k != "dataset"})
    return tuple(sorted(found.values(), key=lambda opening: str(opening["at"])))
