"""Turn exports into a dataset folder: ``build`` makes the splits in memory, ``write_prepared``
writes them all at once, so that nobody sees a half-written folder."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import nsmallest
from pathlib import Path
from typing import Any

from trainer.artifacts.files import PRIVATE
from trainer.dataset.clean import Cleaner, describe_cleaning, make_cleaner
from trainer.dataset.extra_files import (
    COPIES,
    GROUPS,
    LABEL_SOURCES,
    Traffic,
    copy_lines,
    count_sources,
    count_traffic,
    group_lines,
    source_lines,
)
from trainer.dataset.findings import Findings, listed, rows_of
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
    find_repeated,
    number_copies,
    texts_sha256,
    to_lines,
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
from trainer.dataset.report import describe_split, render_report
from trainer.dataset.settings import (
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
from trainer.similarity import SIMILARITY
from worker.common.review_files import write_review
from worker.contract import Taxonomy
from worker.contract.digest import sha256_bytes, sha256_file, sync_directory, write_atomically
from worker.contract.text import NORMALIZATION, message_sha256, normalize

MAX_MESSAGE_BYTES = 1 << 20
"""Limit in UTF-8: a longer message is an attachment or a broken export."""

OnProgress = Callable[[str, int], Callable[[int], None]]
"""Called with a stage's name and size; returns a function to call with the amount done."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset that is ready to be written.

    ``counts`` (JSON) accounts for every row that was read; ``examples`` names a few rows of each
    kind by id. ``held`` are the hold-out's rows, ``pool`` those set aside with a teacher's labels;
    ``people`` (JSON) says who labelled what, if a teacher labelled some. ``near_conflicts`` are
    clusters of near-duplicates with several labels, ``unlabelled`` the rows for a reviewer and
    whether each may be shown. ``split_of`` maps keys to splits; ``split`` (JSON) describes a split
    that is not plainly random. ``unit_of`` maps ids to the unit that had to stay together, None
    without groups. ``origins`` maps ids to the origin of labels that are not the export's.
    ``notes`` are sentences about the files.
    """

    taxonomy: Taxonomy
    splits: dict[str, tuple[Example, ...]]
    held: tuple[Row, ...]
    surplus: tuple[Example, ...]
    pool: tuple[Row, ...]
    people: dict[str, Any] | None
    conflicts: tuple[Conflict, ...]
    near_conflicts: tuple[tuple[Row, ...], ...]
    unlabelled: tuple[tuple[Row, bool], ...]
    split_of: dict[int, str]
    split: dict[str, Any] | None
    unit_of: dict[str, int] | None
    sources: tuple[Source, ...]
    holdout_source: Source | None
    applied: Applied
    origins: dict[str, LabelOrigin]
    cleaner: Cleaner
    traffic: Traffic
    counts: dict[str, Any]
    examples: dict[str, Any]
    files: dict[str, Any]
    notes: tuple[str, ...]


def _unreported(_stage: str, _size: int) -> Callable[[int], None]:
    return lambda _done: None


def build(settings: PrepareSettings, on_progress: OnProgress = _unreported) -> Prepared:
    """Make the splits. Raises BadInput."""
    # The quick checks of the whole input come before the slow search for near-duplicates, so that
    # a mistake is reported in seconds.
    taxonomy = Taxonomy.from_toml(settings.taxonomy)
    check_shares(settings.validation_share, settings.holdout_share)
    check_split(settings)
    decisions, undecided = _read_decisions(settings, taxonomy)
    findings = Findings(drop_broken=settings.broken_rows is OnBroken.DROP)
    rows, sources = _read(settings, taxonomy, findings, on_progress)
    cleaner = make_cleaner(settings)
    rows_read = sum(source.rows for source in sources) + findings.broken_rows
    repeated_rows = rows_read - len(rows) - findings.broken_rows
    decided = {decision.answer.id for decision in decisions}
    originals = {row.id: normalize(row.message) for row in rows if row.id in decided}
    cleaning = _clean(rows, findings, cleaner, on_progress)
    firsts = number_copies(rows)
    _refuse_wrong(rows, decided, findings, settings, taxonomy)
    usable, applied = rows, apply_decisions(rows, originals, decisions)
    applied, unlabelled = _set_aside(applied, settings, taxonomy, findings)
    before = len(applied.rows)
    applied = replace(applied, rows=prefer_people(applied.rows))
    taught = any(row.by_teacher for row in applied.rows)
    if taught and settings.holdout and holdout_is_all(applied.rows):
        findings.notes.append(
            f"{settings.holdout.name} has all labels by people, so a part of it validates, and the "
            "rest is held out"
        )
        settings = replace(settings, holdout=None)
        usable = [replace(row, given=False) for row in usable]
        applied = replace(applied, rows=tuple(replace(row, given=False) for row in applied.rows))

    given_keys = {row.key for row in usable if row.given}
    own = [row for row in applied.rows if not row.given]
    fresh = [row for row in own if row.key not in given_keys]
    held = dedupe_exact(
        [row for row in applied.rows if row.given], settings.conflicts, applied.decided
    )
    deduped = dedupe_exact(fresh, settings.conflicts, applied.decided)
    if small := find_small(
        Counter(row.label for row in deduped.rows), taxonomy, settings.minimum_per_label
    ):
        raise BadInput(*small)

    tick = on_progress("compare", len(firsts))
    near = group_near(len(firsts), lambda key: firsts[key].folded, similarity=SIMILARITY, tick=tick)
    clusters = unite_copies(near.clusters, ((row.key, row.message) for row in usable))
    split = split_rows(usable, clusters, given_keys, settings)
    if taught:
        split = let_people_judge(split, [*deduped.rows, *held.rows], settings)
    filled = fill_splits(deduped.rows, held.rows, split, settings)
    # A random sample of what people decide may lack a rare label; ``people`` says so.
    refuse_absent(
        {TRAIN: filled.splits[TRAIN]} if taught else filled.splits,
        taxonomy,
        own_holdout=settings.holdout is not None,
        by_time=split.cuts is not None,
    )
    near_conflicts = find_near_conflicts([*deduped.rows, *held.rows], clusters)
    conflicts = deduped.conflicts + held.conflicts
    traffic = count_traffic(applied.rows, filled.rows[HOLDOUT], split.of)
    return Prepared(
        taxonomy=taxonomy,
        splits=filled.splits,
        held=tuple(filled.rows[HOLDOUT]),
        surplus=filled.surplus,
        pool=filled.pool,
        people=describe_people(filled.rows, filled.pool, taxonomy.names) if taught else None,
        conflicts=conflicts,
        near_conflicts=near_conflicts,
        unlabelled=_for_review(unlabelled, filled, clusters, settings),
        split_of=split.of,
        split=describe_split(settings, split, usable, filled.rows),
        unit_of=_unit_of(split, filled) if settings.columns.group else None,
        sources=tuple(sources[: len(settings.inputs)]),
        holdout_source=sources[-1] if len(sources) > len(settings.inputs) else None,
        applied=applied,
        origins={
            row.id: row.origin
            for some in filled.rows.values()
            for row in some
            if row.origin and row.origin != EXPORT
        },
        cleaner=cleaner,
        traffic=traffic,
        counts={
            "rows_read": rows_read,
            "broken_dropped": findings.broken_rows,
            "repeated_dropped": repeated_rows,
            **cleaning,
            "unlabelled": {settings.unknown_label.value: len(unlabelled)} if unlabelled else {},
            "decisions": {
                **Counter(made["decision"] for made in applied.made),
                "undecided": undecided,
                "rows_dropped": len(usable) - before,
            },
            **({"replaced_by_people": before - len(applied.rows)} if taught else {}),
            **count_duplicates(deduped, held, near, near_conflicts),
            "holdout_copies_removed": _count_copies(own, fresh, held, filled.near_holdout),
            **filled.counts,
            **traffic.describe(),
        },
        examples=name_examples(conflicts, near_conflicts, near, usable),
        files=_describe_files(settings),
        notes=tuple(findings.notes),
    )


def _read(
    settings: PrepareSettings, taxonomy: Taxonomy, findings: Findings, on_progress: OnProgress
) -> tuple[list[Row], list[Source]]:
    """Return all rows, each with an id and a mapped label, and their files, the ``--holdout`` file
    last. What is wrong with them goes to ``findings``."""
    # Sorted by id, or by time, so that the dataset does not depend on the order of lines and files.
    paths = [*settings.inputs, *([settings.holdout] if settings.holdout else [])]
    tick = on_progress("read", len(paths))
    rows: list[Row] = []
    sources = []
    for path in paths:
        try:
            some, source = read_source(
                path,
                settings.columns,
                findings,
                encoding=settings.encoding,
                sheet=settings.sheet,
            )
        except BadInput as error:
            findings.wrong += error.lines
            continue
        if path is settings.holdout:
            some = [replace(row, given=True) for row in some]
        elif settings.label_source != EXPORT.source:
            usual = LabelOrigin(settings.label_source)
            some = [replace(row, origin=row.origin or usual) for row in some]
        rows += some
        sources.append(source)
        tick(1)
    rows = free_ids(rows)
    _keep_once(rows, findings)
    rows = sorted(complete_ids(rows), key=lambda row: row.id)
    if settings.label_map:
        table = read_label_map(settings.label_map, taxonomy.names)
        rows = map_labels(rows, table)
    findings.notes += match_spelling(rows, taxonomy.names)
    if settings.split is SplitBy.TIME:
        refuse_mixed(rows)
        rows = latest_first(rows)
    return rows, sources


def _keep_once(rows: list[Row], findings: Findings) -> None:
    """Remove rows that repeat another in everything, in place; ids of different rows are wrong."""
    repeated, several = find_repeated(rows)
    if repeated:
        findings.add_places(
            f"{rows_of(len(repeated))} repeated another exactly: kept once",
            [rows[place].where for place in repeated],
        )
        again = set(repeated)
        rows[:] = [row for place, row in enumerate(rows) if place not in again]
    if several:
        id_, places = next(iter(several.items()))
        rest = f", and {len(several) - 1:,} more such ids" if len(several) > 1 else ""
        findings.wrong.append(
            f"{rows_of(len(places))} have the id {id_!r} ({listed(places)}){rest}: ids must be "
            "unique; name another --id-column"
        )


def _clean(
    rows: list[Row], findings: Findings, cleaner: Cleaner, on_progress: OnProgress
) -> dict[str, Any]:
    """Clean the rows in place, drop those that are empty or too long, and return the counts."""
    # In place: an export and a clean copy of it would need twice the memory.
    tick = on_progress("clean", len(rows))
    changed: Counter[str] = Counter(normalized=0)
    if cleaner.redaction or cleaner.names:
        changed["redacted"] = 0
    redacted: Counter[str] = Counter()
    empty: list[str] = []
    long: list[str] = []
    left_whole = kept = 0
    for row in rows:
        done = cleaner.clean(row.message)
        changed.update(done.changed)
        redacted.update(done.redacted)
        left_whole += done.left_whole
        tick(1)
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
) -> tuple[tuple[Row, bool], ...]:
    """Return the rows that a reviewer is to label, and whether each may be shown: not if the
    hold-out has a copy or a near-copy."""
    if settings.unknown_label is not OnUnknown.REVIEW:
        return ()
    held = {row.key for row in filled.rows[HOLDOUT]}
    hidden = held | {key for some in clusters if not held.isdisjoint(some) for key in some}
    return tuple((row, row.key not in hidden) for row in unlabelled)


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


def _unit_of(split: Split, filled: FilledSplits) -> dict[str, int]:
    """Return id -> unit number, for the rows in a split."""
    unit_of = {key: at for at, unit in enumerate(split.units) for key in unit}
    return {row.id: unit_of[row.key] for rows in filled.rows.values() for row in rows}


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


def _describe_files(settings: PrepareSettings) -> dict[str, Any]:
    files: dict[str, Any] = {"decisions": [_describe_file(path) for path in settings.decisions]}
    if settings.label_map:
        files["label_map"] = _describe_file(settings.label_map)
    return files


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
    wanted = {key for some in (*clusters, *templates) for key in some}
    by_key = {row.key: row for row in rows if row.key in wanted}
    return {
        "conflicts": [_names(conflict.rows) for conflict in conflicts[:_GROUPS]],
        "near_conflicts": [_names(some) for some in near_conflicts[:_GROUPS]],
        "largest_clusters": [_names([by_key[key] for key in some]) for some in clusters],
        "largest_templates": [_names([by_key[key] for key in some]) for some in templates],
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


SURPLUS, CONFLICTS, REPORT = "surplus.jsonl", "conflicts.csv", "report.md"
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
            **(
                {"label_sources": count_sources(prepared.splits, prepared.origins)}
                if prepared.origins
                else {}
            ),
            **({"people": prepared.people} if prepared.people else {}),
            label_map=prepared.files.get("label_map"),
            decisions={"files": prepared.files["decisions"], "made": list(prepared.applied.made)},
            counts=prepared.counts,
            notes=list(prepared.notes),
            examples=prepared.examples,
            extra_files=extra,
        )
        text = render_report(dataset.record, dataset.digest)
        write_atomically(directory / REPORT, text.encode("utf-8"))
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


def _extra_files(prepared: Prepared) -> Iterator[tuple[str, bytes, int]]:
    if prepared.surplus:
        yield SURPLUS, to_lines(prepared.surplus), len(prepared.surplus)
    if prepared.unit_of is not None:
        yield GROUPS, *group_lines(prepared.splits, prepared.unit_of)
    data, count = source_lines(prepared.splits, prepared.origins)
    if count:
        yield LABEL_SOURCES, data, count
    if prepared.pool:
        yield TEACHER_POOL, *pool_file(prepared.pool)
    data, count = teacher_label_lines(prepared.held)
    if count and prepared.pool:
        yield TEACHER_LABELS, data, count
    data, count = copy_lines(prepared.traffic)
    if count:
        yield COPIES, data, count
    rows = list(_conflict_rows(prepared))
    if rows:
        yield CONFLICTS, write_review(_COLUMNS, rows), len(rows)
    if prepared.unlabelled:
        rows = list(_unlabelled_rows(prepared))
        yield UNLABELLED, write_review(_TO_LABEL, rows), len(rows)


_TO_LABEL = (*IDENTITY, "label", "message", *BY_HAND)


def _unlabelled_rows(prepared: Prepared) -> Iterator[dict[str, str]]:
    for row, shown in prepared.unlabelled:
        yield {
            "id": row.id,
            "message_sha256": message_sha256(row.message),
            "label": row.label,
            "message": row.message if shown else _HIDDEN,
        }


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


_HIDDEN = "(near-copy of a message in the sealed hold-out: look it up by its id)"


def _shown(row: Row, prepared: Prepared) -> str:
    """Return a row's text, or a placeholder if it is in the hold-out or nearly equal to a message
    there: reading it here would open the hold-out without being counted."""
    hidden = {HOLDOUT: "(in the sealed hold-out, or assigned to it: look it up by its id)",
              NEAR_HOLDOUT: _HIDDEN}  # fmt: skip
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
        "message": text,
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
