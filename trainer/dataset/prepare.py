"""Turn exports into a dataset folder: ``build`` makes the splits in memory, ``write_prepared``
writes them all at once, so that nobody sees a half-written folder."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import nsmallest
from pathlib import Path
from typing import Any

from trainer.dataset.clean import Cleaner, canonical, describe_cleaning, make_cleaner
from trainer.dataset.extra_files import (
    COPIES,
    GROUPS,
    LABEL_SOURCES,
    ExtraFile,
    Traffic,
    copy_lines,
    count_sources,
    count_traffic,
    group_lines,
    source_lines,
    write_extra_files,
)
from trainer.dataset.findings import Findings, describe_shared_ids, rows_of
from trainer.dataset.folder import (
    EXPORT,
    HOLDOUT,
    SPLITS,
    TRAIN,
    Dataset,
    Example,
    LabelOrigin,
    Row,
    complete_ids,
    earlier_openings,
    number_copies,
    open_dataset,
    texts_sha256,
    to_lines,
    unique_ids,
    write_dataset,
)
from trainer.dataset.labels import (
    BY_HAND,
    IDENTITY,
    Applied,
    Decision,
    apply_decisions,
    describe_unknown,
    find_small,
    map_labels,
    match_spelling,
    read_decisions,
    read_label_map,
    refuse_absent,
)
from trainer.dataset.near_duplicates import NearGroups, group_near
from trainer.dataset.people import (
    TEACHER_LABELS,
    TEACHER_POOL,
    describe_people,
    free_ids,
    holdout_is_all,
    let_people_judge,
    pool_file,
    prefer_people,
    teacher_label_lines,
)
from trainer.dataset.readers import Source, read_source
from trainer.dataset.report import describe_split
from trainer.dataset.settings import (
    ColumnNames,
    ConflictPolicy,
    OnBroken,
    OnUnknown,
    PrepareSettings,
    SplitBy,
)
from trainer.dataset.split import (
    NEAR_HOLDOUT,
    FilledSplits,
    Split,
    check_shares,
    check_split,
    fill_splits,
    latest_first,
    refuse_mixed,
    split_rows,
    unite_copies,
)
from trainer.errors import BadInput
from trainer.languages import count_languages
from trainer.progress import track
from trainer.similarity import SIMILARITY
from worker.common.review_files import write_review
from worker.contract import Taxonomy
from worker.contract.digest import sha256_file, sync_directory
from worker.contract.text import NORMALIZATION, message_sha256, normalize

MAX_MESSAGE_BYTES = 1 << 20
"""Limit in UTF-8: a longer message is an attachment or a broken export."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset that is ready to be written: its ``facts`` are for the manifest (JSON), its
    ``files`` the others of its folder (name, content, and rows)."""

    taxonomy: Taxonomy
    splits: dict[str, tuple[Example, ...]]
    redaction: str | None
    facts: dict[str, Any]
    files: Sequence[ExtraFile]


@dataclass(frozen=True, slots=True)
class _Input:
    """The whole input, cleaned, its labels known. ``firsts`` has the first row of each message
    (see ``number_copies``), ``usable`` all rows, ``applied`` those that the decisions left, and
    ``unlabelled`` those without a label of the taxonomy; ``counts`` is for the manifest (JSON)."""

    settings: PrepareSettings
    taxonomy: Taxonomy
    cleaner: Cleaner
    sources: Sequence[Source]
    firsts: Sequence[Row]
    usable: Sequence[Row]
    applied: Applied
    unlabelled: Sequence[Row]
    taught: bool
    notes: list[str]
    counts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Division:
    """The rows in their splits. ``held`` are those of the ``--holdout`` file, ``own`` the others,
    ``clusters`` the keys of messages that stay together, ``origins`` by id where a label that is
    not the export's comes from."""

    held: Deduped
    own: Deduped
    near: NearGroups
    clusters: Sequence[Sequence[int]]
    split: Split
    filled: FilledSplits
    near_conflicts: Sequence[Sequence[Row]]
    holdout_copies: dict[str, int]
    traffic: Traffic
    origins: dict[str, LabelOrigin]

    @property
    def conflicts(self) -> Sequence[Conflict]:
        """Messages with several labels."""
        return self.own.conflicts + self.held.conflicts


def build(settings: PrepareSettings) -> Prepared:
    """Make the splits. Raises BadInput."""
    # The quick checks of the whole input come before the slow search for near-duplicates, so that
    # a mistake is reported in seconds.
    taken = _take_in(settings)
    divided = _divide(taken)
    return Prepared(
        taken.taxonomy,
        divided.filled.splits,
        taken.cleaner.redaction,
        _facts(settings, taken, divided),
        _files(taken, divided),
    )


def _take_in(settings: PrepareSettings) -> _Input:
    """Read, clean, and decide. Raises BadInput with everything that is wrong."""
    taxonomy = Taxonomy.from_toml(settings.taxonomy)
    check_shares(settings.validation_share, settings.holdout_share)
    check_split(settings)
    decisions, undecided = _read_decisions(settings, taxonomy)
    findings = Findings(drop_broken=settings.broken_rows is OnBroken.DROP)
    rows, sources = _read(settings, taxonomy, findings)
    rows_read = sum(source.rows for source in sources) + findings.broken_rows
    repeated_rows = rows_read - len(rows) - findings.broken_rows
    decided = {decision.answer.id for decision in decisions}
    originals = {row.id: normalize(row.message) for row in rows if row.id in decided}
    cleaner = make_cleaner(settings)
    cleaning = _clean(rows, findings, cleaner)
    firsts = number_copies(rows)
    _refuse_wrong(rows, decided, findings, settings, taxonomy)
    applied = apply_decisions(rows, originals, decisions)
    applied, unlabelled = _set_aside(applied, settings, taxonomy, findings)
    labelled = len(applied.rows)
    applied = replace(applied, rows=prefer_people(applied.rows))
    taught = any(row.by_teacher for row in applied.rows)
    counts = {
        "rows_read": rows_read,
        "broken_dropped": findings.broken_rows,
        "repeated_dropped": repeated_rows,
        **cleaning,
        "unlabelled": {settings.unknown_label.value: len(unlabelled)} if unlabelled else {},
        "decisions": {
            **Counter(made["decision"] for made in applied.made),
            "undecided": undecided,
            "rows_dropped": len(rows) - labelled,
        },
        **_given(replaced_by_people=labelled - len(applied.rows) if taught else None),
    }
    if taught and settings.holdout and holdout_is_all(applied.rows):
        # Nothing else has labels that may judge, so the file is split like an export.
        findings.notes.append(
            f"{settings.holdout.name} has all labels by people, so a part of it validates, and the "
            "rest is held out"
        )
        settings = replace(settings, holdout=None)
        rows = [replace(row, given=False) for row in rows]
        applied = replace(applied, rows=tuple(replace(row, given=False) for row in applied.rows))
    return _Input(
        settings, taxonomy, cleaner, sources, firsts, rows, applied, unlabelled, taught,
        findings.notes, counts,
    )  # fmt: skip


def _divide(taken: _Input) -> _Division:
    """Remove copies, find near-duplicates, and fill the splits. Raises BadInput for labels with
    too few messages."""
    settings, taxonomy, applied = taken.settings, taken.taxonomy, taken.applied
    given_keys = {row.key for row in taken.usable if row.given}
    own_rows = [row for row in applied.rows if not row.given]
    fresh = [row for row in own_rows if row.key not in given_keys]
    held = dedupe_exact(
        [row for row in applied.rows if row.given], settings.conflicts, applied.decided
    )
    own = dedupe_exact(fresh, settings.conflicts, applied.decided)
    if small := find_small(
        Counter(row.label for row in own.rows), taxonomy, settings.minimum_per_label
    ):
        raise BadInput(*small)

    firsts = taken.firsts
    near = group_near(len(firsts), lambda key: firsts[key].folded, similarity=SIMILARITY)
    clusters = unite_copies(
        near.clusters, ((row.key, row.message) for row in taken.usable), near.passages
    )
    split = split_rows(
        taken.usable, clusters, given_keys, settings, _learned(settings, taken.usable)
    )
    if taken.taught:
        split = let_people_judge(split, [*own.rows, *held.rows], settings)
    filled = fill_splits(own.rows, held.rows, split, settings)
    # A random sample of what people decide may lack a rare label; ``people`` says so.
    refuse_absent(
        {TRAIN: filled.splits[TRAIN]} if taken.taught else filled.splits,
        taxonomy,
        own_holdout=settings.given_holdout is not None,
        by_time=split.cuts is not None,
    )
    near_conflicts = find_near_conflicts([*own.rows, *held.rows], clusters)
    copies = _count_copies(own_rows, fresh, held, filled.near_holdout)
    traffic = count_traffic(applied.rows, filled.rows[HOLDOUT], split.of)
    origins = {
        row.id: row.origin
        for some in filled.rows.values()
        for row in some
        if row.origin and row.origin != EXPORT
    }
    return _Division(
        held, own, near, clusters, split, filled, near_conflicts, copies, traffic, origins
    )


def _learned(settings: PrepareSettings, rows: Sequence[Row]) -> frozenset[int]:
    """Return the keys of messages that the adapter of ``--after`` has learned or validated with."""
    if settings.after_dataset is None:
        return frozenset()
    last = open_dataset(settings.after_dataset)
    texts = {example.key for example in (*last.train, *last.validation)}
    return frozenset(row.key for row in rows if row.folded in texts)


def _facts(asked: PrepareSettings, taken: _Input, divided: _Division) -> dict[str, Any]:
    """Return the manifest's facts (JSON): where the rows came from, and what became of them."""
    settings, filled, sources = taken.settings, divided.filled, taken.sources
    names, origins = taken.cleaner.names, divided.origins
    return {
        "sources": [_describe(source) for source in sources[: len(settings.inputs)]],
        "holdout_source": _describe(sources[-1]) if asked.given_holdout else None,
        "settings": asked.describe(),
        "options": asked.options(),
        **_given(
            split=describe_split(settings, divided.split, taken.usable, filled.rows),
            label_sources=count_sources(filled.splits, origins) if origins else None,
            people=describe_people(filled.rows, filled.pool, taken.taxonomy.names)
            if taken.taught
            else None,
            passages=sorted(divided.near.passages) or None,
        ),
        "languages": count_languages([row.message for row in taken.usable]),
        **describe_cleaning(filled.splits, names.facts if names else None),
        "label_map": _describe_file(settings.label_map) if settings.label_map else None,
        "decisions": {
            "files": [_describe_file(path) for path in settings.decisions],
            "made": list(taken.applied.made),
        },
        "counts": {
            **taken.counts,
            **count_duplicates(divided.own, divided.held, divided.near, divided.near_conflicts),
            "holdout_copies_removed": divided.holdout_copies,
            **filled.counts,
            **divided.traffic.describe(),
        },
        "notes": taken.notes,
        "examples": name_examples(
            divided.conflicts, divided.near_conflicts, divided.near, taken.usable
        ),
    }


def _files(taken: _Input, divided: _Division) -> Sequence[ExtraFile]:
    """Return the other files of the dataset's folder."""
    filled, split = divided.filled, divided.split
    review = _for_review(taken.unlabelled, filled, divided.clusters, taken.settings)
    conflicts = _conflict_rows(divided.conflicts, divided.near_conflicts, split.of)
    judged = filled.rows[HOLDOUT] if filled.pool else ()
    return (
        (SURPLUS, to_lines(filled.surplus), len(filled.surplus)),
        (LABEL_SOURCES, *source_lines(filled.splits, divided.origins)),
        (TEACHER_POOL, *pool_file(filled.pool)),
        (TEACHER_LABELS, *teacher_label_lines(judged)),
        (COPIES, *copy_lines(divided.traffic)),
        (CONFLICTS, *_review_file(_COLUMNS, conflicts)),
        (UNLABELLED, *_review_file(_TO_LABEL, review)),
        *_group_files(filled, split, taken.settings),
    )


def _given(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _group_files(
    filled: FilledSplits, split: Split, settings: PrepareSettings
) -> Iterator[ExtraFile]:
    if settings.columns.group:
        unit_of = {key: at for at, unit in enumerate(split.units) for key in unit}
        units = {row.id: unit_of[row.key] for rows in filled.rows.values() for row in rows}
        yield GROUPS, *group_lines(filled.splits, units)


def _read(
    settings: PrepareSettings, taxonomy: Taxonomy, findings: Findings
) -> tuple[list[Row], list[Source]]:
    """Return all rows, each with an id and a mapped label, and their files, the ``--holdout`` file
    last. What is wrong with them goes to ``findings``."""
    # Sorted by id, or by time, so that the dataset does not depend on the order of lines and files.
    holdout = settings.given_holdout
    paths = [*settings.inputs, *([holdout] if holdout else [])]
    rows: list[Row] = []
    sources = []
    for path in paths:
        try:
            some, source = read_source(
                path,
                # A dataset's own file has its usual names.
                ColumnNames() if path is holdout and settings.after else settings.columns,
                findings,
                encoding=settings.encoding,
                sheet=settings.sheet,
            )
        except BadInput as error:
            findings.wrong += error.lines
            continue
        if path is holdout:
            some = [replace(row, given=True) for row in some]
        elif settings.label_source != EXPORT.source:
            usual = LabelOrigin(settings.label_source)
            some = [replace(row, origin=row.origin or usual) for row in some]
        rows += some
        sources.append(source)
    if holdout:
        rows = _without_held(rows)
    rows = free_ids(rows)
    rows, repeated, several = unique_ids(rows)
    if repeated:
        what = f"{rows_of(len(repeated))} repeated another exactly: kept once"
        findings.add_places(what, repeated)
    findings.notes += describe_shared_ids(several)
    rows = sorted(complete_ids(rows), key=lambda row: row.id)
    if settings.label_map:
        strict = settings.unknown_label is OnUnknown.ERROR
        table = read_label_map(settings.label_map, taxonomy.names if strict else None)
        rows = map_labels(rows, table)
    findings.notes += match_spelling(rows, taxonomy.names)
    if settings.split is SplitBy.TIME:
        refuse_mixed(rows)
        rows = latest_first(rows)
    return rows, sources


def _without_held(rows: list[Row]) -> list[Row]:
    """Leave out the input's rows that are a row of the hold-out's file, with its id and text: an
    export that has grown has them again."""
    held = {row.id: canonical(row.message) for row in rows if row.given and row.id}
    return [
        row
        for row in rows
        if row.given or row.id not in held or canonical(row.message) != held[row.id]
    ]


def _clean(rows: list[Row], findings: Findings, cleaner: Cleaner) -> dict[str, Any]:
    """Clean the rows in place, drop those that are empty or too long, and return the counts."""
    # In place: an export and a clean copy of it would need twice the memory.
    changed: Counter[str] = Counter(normalized=0)
    if cleaner.redaction or cleaner.names:
        changed["redacted"] = 0
    redacted: Counter[str] = Counter()
    empty: list[str] = []
    long: list[str] = []
    left_whole = kept = 0
    for row in track("cleaning", rows):
        done = cleaner.clean(row.message)
        changed.update(done.changed)
        redacted.update(done.redacted)
        left_whole += done.left_whole
        too_long = len(row.message) > MAX_MESSAGE_BYTES or (
            len(row.message) > MAX_MESSAGE_BYTES // 4
            and len(row.message.encode("utf-8", "surrogatepass")) > MAX_MESSAGE_BYTES
        )
        if too_long or not done.text:
            (long if too_long else empty).append(row.where)
            continue
        rows[kept] = row if done.text == row.message else replace(row, message=done.text)
        kept += 1
    del rows[kept:]
    for places, what in ((empty, "an empty message"), (long, "a message of more than 1 MiB")):
        if places:
            findings.add_places(f"{rows_of(len(places))} with {what}: dropped", places)
    return {
        "empty_dropped": len(empty),
        "too_long_dropped": len(long),
        "cleaned": {"rules": NORMALIZATION, **changed, "left_whole": left_whole},
        "redacted": dict(redacted),
    }


def _refuse_wrong(
    rows: Sequence[Row],
    decided: Collection[str],
    findings: Findings,
    settings: PrepareSettings,
    taxonomy: Taxonomy,
) -> None:
    """Raise BadInput with everything that is wrong so far, labels included. Labels that decisions
    change are not."""
    known = frozenset(taxonomy.names)
    unknown = [row for row in rows if row.label not in known]
    if unknown and settings.unknown_label is OnUnknown.ERROR:
        changed = {(row.key, row.label) for row in rows if row.id in decided}
        unknown = [row for row in unknown if (row.key, row.label) not in changed]
        findings.wrong += [f"{one}: {_UNKNOWN}" for one in describe_unknown(unknown, known)]
    if findings.wrong and rows:
        texts = {(row.label, row.key) for row in rows if row.label in known and not row.given}
        findings.wrong += find_small(
            Counter(label for label, _ in texts), taxonomy, settings.minimum_per_label
        )
    findings.refuse()


_UNKNOWN = "use --label-map, add it to the taxonomy, or choose --unknown-label drop or review"


def _set_aside(
    applied: Applied, settings: PrepareSettings, taxonomy: Taxonomy, findings: Findings
) -> tuple[Applied, tuple[Row, ...]]:
    """Return the rows without those whose label is still unknown after the decisions, and these.
    Raises BadInput under ``--unknown-label error``."""
    known = frozenset(taxonomy.names)
    unknown = tuple(row for row in applied.rows if row.label not in known)
    if not unknown:
        return applied, ()
    phrases = describe_unknown(unknown, known)
    if settings.unknown_label is OnUnknown.ERROR:
        raise BadInput(*(f"{one}: {_UNKNOWN}" for one in phrases))
    done = "dropped" if settings.unknown_label is OnUnknown.DROP else f"in {UNLABELLED}"
    findings.notes += [f"{one}: {done}" for one in phrases]
    left = tuple(row for row in applied.rows if row.label in known)
    return replace(applied, rows=left), unknown


def _for_review(
    unlabelled: Sequence[Row],
    filled: FilledSplits,
    clusters: Sequence[Sequence[int]],
    settings: PrepareSettings,
) -> Iterator[dict[str, str]]:
    """Yield the rows that a reviewer is to label, without the text of those of which the hold-out
    has a copy or a near-copy."""
    if settings.unknown_label is not OnUnknown.REVIEW:
        return
    held = {row.key for row in filled.rows[HOLDOUT]}
    hidden = held | {key for some in clusters if not held.isdisjoint(some) for key in some}
    for row in unlabelled:
        yield {
            "id": row.id,
            "message_sha256": message_sha256(row.message),
            "label": row.label,
            "message": _HIDDEN if row.key in hidden else row.message,
        }


def _read_decisions(settings: PrepareSettings, taxonomy: Taxonomy) -> tuple[list[Decision], int]:
    """Return the decisions and the number of undecided rows."""
    decisions = []
    undecided = 0
    wrong: list[str] = []
    for path in settings.decisions:
        try:
            some, still_open = read_decisions(path, taxonomy.names)
        except BadInput as error:
            wrong += error.lines
            continue
        decisions += some
        undecided += still_open
    if wrong:
        raise BadInput(*wrong)
    return decisions, undecided


def _count_copies(
    own: Sequence[Row], fresh: Sequence[Row], held: Deduped, near: int
) -> dict[str, int]:
    """Count the input's rows that are copies or near-copies of the ``--holdout`` file's."""
    held_label = {row.key: row.label for row in held.rows}
    return {
        "exact": len(own) - len(fresh),
        "exact_with_another_label": sum(
            held_label.get(row.key, row.label) != row.label for row in own
        ),
        "near": near,
    }


def _describe(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "sha256": source.sha256,
        "rows": source.rows,
        "columns": source.columns.describe(),
        "guessed_columns": list(source.columns.guessed),
        "found": source.found,
    }


def _describe_file(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": sha256_file(path)}


_GROUPS, _MEMBERS = 5, 6


@dataclass(frozen=True, slots=True)
class Conflict:
    """One message under several labels; ``kept`` is the label that won, if any, and ``why`` the
    rule that decided."""

    rows: tuple[Row, ...]
    kept: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Deduped:
    """One row for each message, in the given order. ``copies`` counts exact copies with the same
    label, ``left_out`` the rows that lost a conflict."""

    rows: tuple[Row, ...]
    copies: int
    left_out: int
    conflicts: tuple[Conflict, ...]


def dedupe_exact(
    rows: Sequence[Row], policy: ConflictPolicy, decided: Collection[str] = ()
) -> Deduped:
    """Keep the first row of each group of exact copies, and resolve label conflicts.

    ``decided`` holds the ids whose label a reviewer confirmed or set. If these agree, their label
    wins under any policy. Otherwise DROP leaves out all rows, and KEEP_MAJORITY keeps the most
    frequent label, or leaves out all rows in a tie.
    """
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    kept: list[Row] = []
    conflicts: list[Conflict] = []
    copies = left_out = 0
    for group in groups.values():
        label: str | None = group[0].label
        if any(row.label != label for row in group):
            label, why = _resolve(group, policy, decided)
            conflicts.append(Conflict(tuple(group), label, why))
        chosen = [row for row in group if row.label == label]
        kept += chosen[:1]
        copies += len(chosen[1:])
        left_out += len(group) - len(chosen)
    return Deduped(tuple(kept), copies, left_out, tuple(conflicts))


def find_near_conflicts(
    rows: Sequence[Row], clusters: Sequence[Sequence[int]]
) -> tuple[tuple[Row, ...], ...]:
    """Return the clusters that hold rows of several labels."""
    several = [cluster for cluster in clusters if len(cluster) > 1]
    cluster_of = {key: number for number, cluster in enumerate(several) for key in cluster}
    members: dict[int, list[Row]] = {}
    for row in rows:
        if row.key in cluster_of:
            members.setdefault(cluster_of[row.key], []).append(row)
    return tuple(tuple(some) for some in members.values() if len({row.label for row in some}) > 1)


def count_duplicates(
    own: Deduped,
    held: Deduped,
    near: NearGroups,
    near_conflicts: Sequence[Sequence[Row]],
) -> dict[str, Any]:
    """Count copies, conflicts and clusters for the manifest, the ``--holdout`` file's included."""
    conflicts = own.conflicts + held.conflicts
    sizes = Counter(len(cluster) for cluster in near.clusters if len(cluster) > 1)
    return {
        "exact_duplicates_removed": own.copies + held.copies,
        "conflicts": {
            "messages": len(conflicts),
            "rows_left_out": own.left_out + held.left_out,
            "resolved": dict(Counter(conflict.why for conflict in conflicts)),
        },
        "near_clusters": {
            "clusters": sum(sizes.values()),
            "messages": sum(size * count for size, count in sizes.items()),
            "sizes": {str(size): sizes[size] for size in sorted(sizes)},
            "with_several_labels": len(near_conflicts),
        },
        **_given(passages={"messages": near.footed_count} if near.footed else None),
        "templates": {
            "templates": len(near.templates),
            "messages": sum(map(len, near.templates)),
            "largest": max(map(len, near.templates), default=0),
        },
    }


def name_examples(
    conflicts: Sequence[Conflict],
    near_conflicts: Sequence[Sequence[Row]],
    near: NearGroups,
    rows: Sequence[Row],
) -> dict[str, list[list[str]]]:
    """Return the first conflicts and the largest clusters and templates for the report, a few rows
    of each, by id and label and without text."""
    clusters, templates = _largest(near.clusters), _largest(near.templates)
    wanted = {key for some in (*clusters, *templates, near.footed) for key in some}
    by_key = {row.key: row for row in rows if row.key in wanted}
    return {
        "conflicts": [_names(conflict.rows) for conflict in conflicts[:_GROUPS]],
        "near_conflicts": [_names(some) for some in near_conflicts[:_GROUPS]],
        "largest_clusters": [_names([by_key[key] for key in some]) for some in clusters],
        "largest_templates": [_names([by_key[key] for key in some]) for some in templates],
        **_given(passages=[_names([by_key[key]]) for key in near.footed] or None),
    }


def _largest(groups: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    several = (group for group in groups if len(group) > 1)
    return nsmallest(_GROUPS, several, key=lambda group: -len(group))


def _resolve(
    group: Sequence[Row], policy: ConflictPolicy, decided: Collection[str]
) -> tuple[str | None, str]:
    by_person = {row.label for row in group if row.id in decided}
    if len(by_person) == 1:
        return by_person.pop(), "decided by a person"
    if policy is ConflictPolicy.KEEP_MAJORITY:
        (first, most), (_, second) = Counter(row.label for row in group).most_common(2)
        if most > second:
            return first, "the majority"
    return None, "dropped, all sides"


def _names(rows: Sequence[Row]) -> list[str]:
    named = [f"{row.id} ({row.label})" for row in rows[:_MEMBERS]]
    return [*named, f"and {len(rows) - _MEMBERS} more"] if len(rows) > _MEMBERS else named


SURPLUS, CONFLICTS = "surplus.jsonl", "conflicts.csv"
UNLABELLED = "unlabelled.csv"


def refuse_existing(out: Path) -> None:
    """Raise BadInput unless ``out`` is a new name or an empty folder."""
    if out.is_dir() and not out.is_symlink():
        if any(out.iterdir()):
            raise BadInput(
                f"{out}: exists and is not empty: a dataset is never overwritten; choose "
                "another --out"
            )
    elif out.exists() or out.is_symlink():
        raise BadInput(f"{out}: exists and is not a folder: choose another --out")


def write_prepared(prepared: Prepared, settings: PrepareSettings) -> Dataset:
    """Write everything into a hidden folder next to ``settings.out``, then rename it. After any
    error the hidden folder is removed and ``settings.out`` does not exist.

    Raises BadInput if the name was taken in the meantime or the disk is full.
    """
    refuse_existing(settings.out)
    holdout_texts = texts_sha256(prepared.splits[HOLDOUT])
    with building(settings.out) as directory:
        extra = write_extra_files(directory, prepared.files)
        dataset = write_dataset(
            directory,
            name=prepared.taxonomy.name,
            taxonomy=prepared.taxonomy,
            splits=prepared.splits,
            redaction=prepared.redaction,
            openings=earlier_openings(settings.out, holdout_texts, settings.earlier),
            extra_files=extra,
            **prepared.facts,
        )
    return replace(dataset, directory=settings.out)


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """Yield a hidden folder that is renamed to ``out`` at the end, or removed after an error.
    Raises BadInput."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise BadInput(f"{out}: cannot be made: {error.strerror}: choose another --out") from error
    try:
        yield directory
        directory.chmod(0o750)  # the files hold message texts: owner and group only
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
        return BadInput(f"{out}: another process made it in the meantime: choose another --out")
    return BadInput(
        f"{out}: {error.strerror}: nothing was written; make room or choose another --out"
    )


_TO_LABEL = (*IDENTITY, "label", "message", *BY_HAND)
_COLUMNS = (*IDENTITY, "kind", "group", "label", "other_labels", "outcome", "message", *BY_HAND)
_HIDDEN = "(near-copy of a message in the sealed hold-out: look it up by its id)"
# By place. Reading these texts here would open the hold-out without being counted.
_HIDDEN_TEXTS = {
    HOLDOUT: "(in the sealed hold-out, or assigned to it: look it up by its id)",
    NEAR_HOLDOUT: _HIDDEN,
}


def _review_file(columns: Sequence[str], rows: Iterable[dict[str, str]]) -> tuple[bytes, int]:
    listed_rows = list(rows)
    return write_review(columns, listed_rows), len(listed_rows)


def _conflict_rows(
    conflicts: Sequence[Conflict],
    near_conflicts: Sequence[Sequence[Row]],
    split_of: Mapping[int, str],
) -> Iterator[dict[str, str]]:
    kinds = [("exact", each.rows) for each in conflicts]
    kinds += [("near", tuple(rows)) for rows in near_conflicts]
    for number, (kind, rows) in enumerate(kinds, start=1):
        for row in rows:
            place = split_of[row.key]
            if kind == "exact":
                won = conflicts[number - 1]
                outcome = f"{won.why}: kept {won.kept}" if won.kept else won.why
            else:
                outcome = f"kept in {place}" if place in SPLITS else place
            yield {
                "id": row.id,
                "message_sha256": message_sha256(row.message),
                "kind": kind,
                "group": str(number),
                "label": row.label,
                "other_labels": " | ".join(sorted({other.label for other in rows} - {row.label})),
                "outcome": outcome,
                "message": _HIDDEN_TEXTS.get(place, row.message),
            }
