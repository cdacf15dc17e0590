"""From exports to the parts of a dataset: the recipe, top to bottom, writing nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.dataset.clean import Redact, clean
from trainer.dataset.conflicts import Conflict, make_unique
from trainer.dataset.counts import count_same, name_examples
from trainer.dataset.decisions import Applied, apply_decisions, read_decisions
from trainer.dataset.examples import Example
from trainer.dataset.labels import map_labels, read_label_map, refuse_unknown
from trainer.dataset.near import bands, near_clusters, sign
from trainer.dataset.placing import NEAR, find_near_conflicts, place, thin
from trainer.dataset.read import Source, complete_ids, read_source
from trainer.dataset.refuse import refuse_bad, refuse_empty_parts, refuse_small
from trainer.dataset.row import Row
from trainer.dataset.settings import PrepareSettings
from trainer.dataset.split import HOLDOUT, TRAIN, VALIDATION, cap_per_label, check_shares
from worker.contract import Taxonomy
from worker.contract.digest import sha256_file
from worker.contract.text import NORMALIZATION, normalize

Watch = Callable[[str, int], Callable[[int], None]]
"""Called with a stage's name and its size; returns what to call with the amount done."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What will be written. ``counts`` says what became of every row (JSON); ``near_conflicts``
    are clusters of near-duplicates that hold several labels, ``examples`` some of all that by id;
    ``sides`` tells a key's side."""

    taxonomy: Taxonomy
    parts: dict[str, tuple[Example, ...]]
    surplus: tuple[Example, ...]
    conflicts: tuple[Conflict, ...]
    near_conflicts: tuple[tuple[Row, ...], ...]
    sides: dict[str, str]
    sources: tuple[Source, ...]
    holdout_source: Source | None
    applied: Applied
    redaction: str | None
    counts: dict[str, Any]
    examples: dict[str, Any]
    files: dict[str, Any]


def _unwatched(_stage: str, _size: int) -> Callable[[int], None]:
    return lambda _done: None


def build(settings: PrepareSettings, watch: Watch = _unwatched) -> Prepared:
    """Make the parts. Raises BadInput in one line for whatever cannot be used; the quick checks
    of the whole input come before the slow search."""
    taxonomy = Taxonomy.from_toml(settings.taxonomy)
    known = taxonomy.names
    check_shares(settings.validation_share, settings.holdout_share)

    rows, sources, holdout_source = _read(settings, watch)
    rows = complete_ids(rows)
    originals = {row.id: normalize(row.message) for row in rows}
    files: dict[str, Any] = {}
    if settings.label_map:
        rows = map_labels(rows, read_label_map(settings.label_map, known))
        files["label_map"] = _describe_file(settings.label_map)
    counts: dict[str, Any] = {"rows_read": len(rows)}

    redaction, redact = _redaction(settings)
    cleaned = clean(
        rows,
        quotes=settings.strip_quotes,
        signatures=settings.strip_signatures,
        redact=redact,
        tick=watch("clean", len(rows)),
    )
    usable, refused = refuse_bad(cleaned.rows, rows, settings)
    counts |= refused
    counts["cleaned"] = {
        "rules": NORMALIZATION,
        **cleaned.changed,
        "left_whole": cleaned.left_whole,
    }
    counts["redacted"] = cleaned.redacted

    decisions = []
    undecided = 0
    for path in settings.decisions:
        some, open_ = read_decisions(path, known)
        decisions += some
        undecided += open_
    applied = apply_decisions(usable, originals, decisions)
    counts["decisions"] = {
        **Counter(one.decision for one in applied.made),
        "undecided": undecided,
        "rows_dropped": len(usable) - len(applied.rows),
    }
    refuse_unknown(applied.rows, known)

    given = [row for row in applied.rows if row.given]
    own = [row for row in applied.rows if not row.given]
    held = make_unique(given, settings.conflicts, applied.decided)
    given_keys = {row.key for row in usable if row.given}
    fresh = [row for row in own if row.key not in given_keys]
    unique = make_unique(fresh, settings.conflicts, applied.decided)
    refuse_small(unique.rows, taxonomy, settings.minimum_per_label)

    keys = sorted({row.key for row in usable})
    groups = near_clusters(
        keys,
        sign(keys, watch("sign", len(keys))),
        similarity=settings.similarity,
        tick=watch("compare", bands(settings.similarity)),
    )
    clusters = [[keys[place] for place in group] for group in groups]
    sides = place(usable, clusters, given_keys, settings)

    placed: dict[str, list[Row]] = {TRAIN: [], VALIDATION: [], HOLDOUT: list(held.rows), NEAR: []}
    for row in unique.rows:
        placed[sides[row.key]].append(row)
    train, near_dropped = thin(placed[TRAIN], clusters, settings.near_duplicates)
    train, surplus = cap_per_label(train, settings.per_label, seed=settings.seed)
    parts = {
        TRAIN: _examples(train),
        VALIDATION: _examples(placed[VALIDATION]),
        HOLDOUT: _examples(placed[HOLDOUT]),
    }
    refuse_empty_parts(parts, taxonomy, own_holdout=settings.holdout is not None)
    near_conflicts = find_near_conflicts([*unique.rows, *held.rows], clusters)
    counts |= count_same(unique, held, clusters, near_conflicts)
    held_label = {row.key: row.label for row in held.rows}
    counts["holdout_copies_removed"] = {
        "exact": len(own) - len(fresh),
        "exact_with_another_label": sum(
            held_label.get(row.key, row.label) != row.label for row in own
        ),
        "near": len(placed[NEAR]),
    }
    counts["near_duplicates_dropped"] = near_dropped
    counts["surplus"] = dict(Counter(row.label for row in surplus))
    counts["parts"] = {part: len(some) for part, some in parts.items()}
    return Prepared(
        taxonomy=taxonomy,
        parts=parts,
        surplus=_examples(surplus),
        conflicts=unique.conflicts + held.conflicts,
        near_conflicts=near_conflicts,
        sides=sides,
        sources=sources,
        holdout_source=holdout_source,
        applied=applied,
        redaction=redaction,
        counts=counts,
        examples=name_examples(unique.conflicts + held.conflicts, near_conflicts, clusters, usable),
        files=files | {"decisions": [_describe_file(path) for path in settings.decisions]},
    )


def _read(
    settings: PrepareSettings, watch: Watch
) -> tuple[list[Row], tuple[Source, ...], Source | None]:
    paths = [*settings.inputs, *([settings.holdout] if settings.holdout else [])]
    tick = watch("read", len(paths))
    rows: list[Row] = []
    sources = []
    for path in paths:
        some, source = read_source(
            path, settings.columns, encoding=settings.encoding, delimiter=settings.delimiter
        )
        rows += [replace(row, given=True) for row in some] if path is settings.holdout else some
        sources.append(source)
        tick(1)
    own = len(settings.inputs)
    return rows, tuple(sources[:own]), sources[own] if settings.holdout else None


def _examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    """Return a part in the order of its ids: the order of lines in the export is no input."""
    return tuple(sorted((row.example for row in rows), key=lambda one: one.id))


def _redaction(settings: PrepareSettings) -> tuple[str | None, Redact | None]:
    if not settings.redact:
        return None, None
    from worker.contract.redact import REDACTION, redact_personal_data

    return REDACTION, redact_personal_data


def _describe_file(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": sha256_file(path)}
