"""Write a prepared dataset so that its folder is never seen half-done."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.artifacts.files import PRIVATE
from trainer.dataset.build import Prepared
from trainer.dataset.by_time import NEAR_HOLDOUT
from trainer.dataset.clean import describe_cleaning
from trainer.dataset.copies import COPIES, copy_lines
from trainer.dataset.decisions import BY_HAND, IDENTITY, guard, write_review_csv
from trainer.dataset.folder import (
    HOLDOUT,
    SPLITS,
    Dataset,
    Row,
    texts_sha256,
    to_lines,
    write_dataset,
)
from trainer.dataset.groups import GROUPS, group_lines
from trainer.dataset.label_sources import LABEL_SOURCES, count_sources, source_lines
from trainer.dataset.openings import earlier_openings
from trainer.dataset.readers import Source
from trainer.dataset.report import render_report
from trainer.dataset.settings import PrepareSettings
from trainer.errors import BadInput
from worker.contract.digest import sha256_bytes, sync_directory, write_atomically
from worker.contract.text import message_sha256

SURPLUS, CONFLICTS, REPORT = "surplus.jsonl", "conflicts.csv", "report.md"


def refuse_existing(out: Path) -> None:
    """Raise BadInput unless ``out`` is a new name or an empty folder."""
    if out.is_dir() and not out.is_symlink():
        if any(out.iterdir()):
            raise BadInput(f"{out}: exists and is not empty: a dataset is never written over")
    elif out.exists() or out.is_symlink():
        raise BadInput(f"{out}: exists and is not a folder")


def write_prepared(prepared: Prepared, settings: PrepareSettings) -> Dataset:
    """Write everything into a hidden folder beside ``settings.out``, then rename it. Whatever
    goes wrong before, the hidden folder is removed and nothing is seen under the name.

    Raises BadInput when the name was taken meanwhile or the disk is full.
    """
    refuse_existing(settings.out)
    holdout_texts = texts_sha256(prepared.splits[HOLDOUT])
    with building(settings.out) as directory:
        extra = {}
        for name, data, rows in _extra_files(prepared):
            write_atomically(directory / name, data, mode=PRIVATE)
            extra[name] = {"sha256": sha256_bytes(data), "bytes": len(data), "rows": rows}
        dataset = write_dataset(
            directory,
            name=prepared.taxonomy.name,
            taxonomy=prepared.taxonomy,
            splits=prepared.splits,
            redaction=prepared.cleaner.redaction,
            openings=earlier_openings(settings.out, holdout_texts, settings.earlier),
            sources=[_describe(source) for source in prepared.sources],
            holdout_source=(
                _describe(prepared.holdout_source) if prepared.holdout_source else None
            ),
            settings=settings.describe(),
            options=settings.options(),
            **({"split": prepared.split} if prepared.split else {}),
            **describe_cleaning(
                prepared.splits, prepared.cleaner.names.facts if prepared.cleaner.names else None
            ),
            **_sourced(prepared),
            label_map=prepared.files.get("label_map"),
            decisions={
                "files": prepared.files["decisions"],
                "made": [decision.describe() for decision in prepared.applied.made],
            },
            counts=prepared.counts,
            examples=prepared.examples,
            extra_files=extra,
        )
        text = render_report(dataset.record, dataset.digest)
        write_atomically(directory / REPORT, text.encode("utf-8"))
    return replace(dataset, directory=settings.out)


def _sourced(prepared: Prepared) -> dict[str, Any]:
    """Return the manifest's ``label_sources``, where a label is not the export's."""
    if not prepared.origins:
        return {}
    return {"label_sources": count_sources(prepared.splits, prepared.origins)}


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """Yield a hidden folder to fill, which becomes ``out``; after an error nothing is there.
    Raises BadInput."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise BadInput(f"{out}: cannot be made: {error.strerror}: choose another --out") from error
    try:
        yield directory
        directory.chmod(0o750)  # it holds texts: for the owner and the group
        directory.rename(out)
        sync_directory(out.parent)
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise _not_written(out, error) from error
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _not_written(out: Path, error: OSError) -> BadInput:
    if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
        return BadInput(f"{out}: was made by somebody else meanwhile: choose another --out")
    return BadInput(
        f"{out}: {error.strerror}: nothing was written; make room or choose another --out"
    )


def _extra_files(prepared: Prepared) -> Iterator[tuple[str, bytes, int]]:
    if prepared.surplus:
        yield SURPLUS, to_lines(prepared.surplus), len(prepared.surplus)
    if prepared.unit_of is not None:
        yield GROUPS, *group_lines(prepared.splits, prepared.unit_of)
    data, count = source_lines(prepared.splits, prepared.origins)
    if count:
        yield LABEL_SOURCES, data, count
    data, count = copy_lines(prepared.traffic)
    if count:
        yield COPIES, data, count
    rows = list(_conflict_rows(prepared))
    if rows:
        yield CONFLICTS, write_review_csv(_COLUMNS, rows).encode("utf-8"), len(rows)


_COLUMNS = (*IDENTITY, "kind", "group", "label", "other_labels", "outcome", "message", *BY_HAND)


def _conflict_rows(prepared: Prepared) -> Iterator[dict[str, str]]:
    number = 0
    for conflict in prepared.conflicts:
        number += 1
        outcome = f"{conflict.why}: kept {conflict.kept}" if conflict.kept else conflict.why
        for row in conflict.rows:
            text = _shown(row, prepared)
            yield _conflict_row(row, conflict.rows, "exact", number, outcome, text)
    for rows in prepared.near_conflicts:
        number += 1
        for row in rows:
            split = prepared.split_of[row.key]
            outcome = f"kept in {split}" if split in SPLITS else split
            yield _conflict_row(row, rows, "near", number, outcome, _shown(row, prepared))


def _shown(row: Row, prepared: Prepared) -> str:
    """Return a row's text, unless it is the hold-out's or nearly so: a look at that here would be
    a look nobody counted. One that was left out may have near-copies in the hold-out."""
    hidden = {
        HOLDOUT: "(in the sealed hold-out, or bound for it: look it up by its id)",
        NEAR_HOLDOUT: "(near to the sealed hold-out: look it up by its id)",
    }
    return hidden.get(prepared.split_of[row.key], row.message)


def _conflict_row(
    row: Row, rows: tuple[Row, ...], kind: str, number: int, outcome: str, text: str
) -> dict[str, str]:
    return {
        "id": row.id,
        "message_sha256": message_sha256(row.message),
        "kind": kind,
        "group": str(number),
        "label": row.label,
        "other_labels": " | ".join(sorted({other.label for other in rows} - {row.label})),
        "outcome": outcome,
        "message": guard(text),
    }


def _describe(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "sha256": source.sha256,
        "rows": source.rows,
        "columns": source.columns.describe(),
        "guessed_columns": list(source.columns.guessed),
    }
