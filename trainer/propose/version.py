"""Make a new version of a dataset from the earlier one and the decisions since.

The rule, named in the manifest:

- Every row stays in its split. Decisions apply in training and validation; in the hold-out only
  those of an audit apply, because correcting only the labels that a model doubts would flatter the
  model. Rows that fit no label are removed.
- A new message that was chosen because a model doubted it goes to training, never to the hold-out:
  a hold-out of hard messages does not represent the messages in service. One that was drawn at
  random (an audit) never goes to training. Its digest decides between hold-out and validation, with
  the shares of the dataset's split: thresholds and temperature have to follow the traffic too.
- New messages are cleaned as the dataset's were, names included, so that known ones are recognized.
- Copies and near-duplicates stay in one split: a new message that is near a held-out message, or
  has its id, is left out; one that is near a training or validation message joins it; new messages
  that are near each other go together. A chosen message near a new drawn one is left out.
- The pool of a teacher's labels (``trainer.dataset.people``) stays as it is, and nothing near it is
  learned. Without the messages that reviewers decided it would not be a random part any more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.dataset.clean import (
    Cleaner,
    cleaner_of,
    cleaning_of,
    describe_cleaning,
    describe_names,
)
from trainer.dataset.extra_files import (
    LABEL_SOURCES,
    count_sources,
    read_groups,
    read_label_sources,
    source_lines,
    write_extra_files,
)
from trainer.dataset.folder import (
    HOLDOUT,
    SPLITS,
    TRAIN,
    VALIDATION,
    Dataset,
    Example,
    LabelOrigin,
    earlier_openings,
    list_openings,
    merge_openings,
    open_holdout,
    texts_sha256,
    write_dataset,
)
from trainer.dataset.near_duplicates import near_clusters
from trainer.dataset.people import Taught, keep_taught, read_taught
from trainer.dataset.prepare import building
from trainer.dataset.split import POOL, shuffle_key, unite_copies
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY
from worker.common.review_files import read_answers
from worker.contract.digest import sha256_bytes
from worker.contract.exchange import Answer, read_tasks
from worker.contract.taxonomy import label_name
from worker.contract.text import message_sha256


@dataclass(frozen=True, slots=True)
class Message:
    """A message and the label that the reviewer saw, if any."""

    id: str
    text: str
    label: str | None


def read_new_messages(paths: Sequence[Path]) -> dict[str, Message]:
    """Read messages, by digest, from tasks (tasks/1) and from files of ``clerk-desk export`` (JSON
    Lines with ``id``, ``message`` and optionally ``label``). Raises BadInput, RecordRefused."""
    found: dict[str, Message] = {}
    for path in paths:
        if '"tasks/1"' in next(iter(_lines(path)), ""):
            messages = [
                Message(each.message_id, each.text, each.label) for each in read_tasks(path)
            ]
        else:
            messages = list(_of_export(path))
        found |= {message_sha256(message.text): message for message in messages}
    return found


def read_outcomes(paths: Sequence[Path]) -> dict[str, Answer]:
    """Read the outcomes, by the message's digest; of several decisions the latest counts.

    An audit's decision wins over a later one on a message that a model chose, so that a model's
    doubt never decides what is held out. Raises BadInput if two differ and their times do not say
    which one is later.
    """
    found: dict[str, Answer] = {}
    for path in paths:
        for answer in read_answers(path):
            if answer.role != "outcome":
                continue
            before = found.get(answer.message_sha256)
            if before is None or _counts_before(answer, before, path):
                found[answer.message_sha256] = answer
    return found


def _counts_before(answer: Answer, before: Answer, path: Path) -> bool:
    # A check asks about a row that the dataset has, so neither it nor an audit chose the message.
    is_draw, was_draw = (each.purpose in {_DRAWN, "check"} for each in (answer, before))
    return _is_later(answer, before, path) if is_draw == was_draw else is_draw


def _is_later(answer: Answer, before: Answer, path: Path) -> bool:
    if (answer.decision, answer.new_label) == (before.decision, before.new_label):
        return (answer.decided_at or "") >= (before.decided_at or "")
    if answer.decided_at == before.decided_at or None in {answer.decided_at, before.decided_at}:
        raise BadInput(
            f"{path.name}: {answer.id!r} has two different decisions, and their times do not say "
            "which is later: keep one"
        )
    return (answer.decided_at or "") > (before.decided_at or "")


def _of_export(path: Path) -> Iterator[Message]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            record: dict[str, Any] = json.loads(line)
            text: str = record["message"] + ""
            label = label_name((record.get("label") or "") + "")
            yield Message(str(record["id"]), text, label or None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput(
                f"{path.name}:{number}: must be an object with 'id' and 'message' (text)"
            ) from None


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({type(error).__name__})") from None
    # split, because splitlines also cuts at U+2028 and other marks that a message may contain.
    return [line for line in text.split("\n") if line.strip()]


RULE = "version/1"
"""Name of the rule above."""

APPLIED = tuple(
    f"{part}_{what}" for part in SPLITS for what in ("relabelled", "confirmed", "dropped")
) + tuple(f"new_in_{part}" for part in SPLITS)
"""The counts of decisions that change the dataset."""

_SHARES = {"holdout_share": 0.15, "validation_share": 0.08}
_DRAWN = "audit"


@dataclass(slots=True)
class _Draft:
    """A version in the making: split -> id -> example, in order."""

    parts: dict[str, dict[str, Example]]
    origins: dict[str, LabelOrigin]
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _New:
    example: Example
    answer: Answer


def make_version(
    base: Dataset,
    outcomes: Mapping[str, Answer],
    messages: Mapping[str, Message],
    out: Path,
    *,
    names: str | None = None,
) -> Dataset:
    """Write the new version into ``out``, whole or not at all, and return it.

    ``outcomes`` and ``messages`` are by the message's digest; ``names`` is the model by which names
    in the dataset were redacted. The opening of the hold-out is counted. The same decisions make
    the same dataset. Raises BadInput for a label outside the taxonomy, for new messages that cannot
    be cleaned as the dataset was, and for a dataset with groups, since decisions do not say to
    which group a new message belongs.
    """
    if read_groups(base) is not None or (base.record.get("split") or {}).get("by") == "group":
        raise BadInput(
            f"{base.directory}: was prepared with groups, and decisions do not name a message's "
            "group: make the new version with clerk-trainer prepare --decisions"
        )
    _refuse_unknown(outcomes, base.taxonomy.names)
    decided = {sha256: message for sha256, message in messages.items() if sha256 in outcomes}
    cleaner = _load_cleaner(base, names, needed=bool(decided))
    held = open_holdout(base, purpose="version", subject=_digest_of(outcomes))
    parts = {TRAIN: base.train, VALIDATION: base.validation, HOLDOUT: held}
    draft = _Draft(
        {name: {each.id: each for each in rows} for name, rows in parts.items()},
        read_label_sources(base),
    )
    new = _apply(draft, base, outcomes, {
        sha256: replace(message, text=cleaner.clean(message.text).text)
        for sha256, message in decided.items()
    })  # fmt: skip
    taught = read_taught(base)
    _place(draft, new, held, taught.pool if taught else (), base)
    return _write(draft, base, outcomes, taught, out)


def _refuse_unknown(outcomes: Mapping[str, Answer], labels: Sequence[str]) -> None:
    strange = sorted({a.new_label for a in outcomes.values() if a.new_label} - set(labels))
    if strange:
        raise BadInput(
            f"decisions name labels that the dataset's taxonomy does not have: "
            f"{', '.join(strange)}: prepare a dataset of the new taxonomy first"
        )


def _digest_of(outcomes: Mapping[str, Answer]) -> str:
    rows = sorted(f"{sha} {a.decision} {a.new_label}" for sha, a in outcomes.items())
    return sha256_bytes("\n".join(rows).encode("utf-8"))


def _apply(
    draft: _Draft, base: Dataset, outcomes: Mapping[str, Answer], messages: Mapping[str, Message]
) -> list[_New]:
    """Apply the decisions about known rows; return the new messages. ``messages`` are cleaned."""
    place = {
        each.key: (part, id_) for part, rows in draft.parts.items() for id_, each in rows.items()
    }
    by_digest = {
        message_sha256(each.message): each.key
        for rows in draft.parts.values()
        for each in rows.values()
    }
    new: dict[str, _New] = {}
    # Several messages may be equal when cleaned; the latest decision counts for them, too.
    for sha256, answer in sorted(outcomes.items(), key=lambda item: _when(*item)):
        message = messages.get(sha256)
        key = by_digest.get(sha256) or (message.text.casefold() if message else None)
        if key in place:
            _decide(draft, *place[key], answer, by=message)
        elif message is None or not message.text.strip():
            draft.counts["decisions_without_text"] += 1
        elif answer.decision == "drop":
            draft.counts["new_messages_that_fit_no_label"] += 1
            # An earlier decision may have accepted an equal text.
            new.pop(message.text.casefold(), None)
        else:
            label = answer.new_label or message.label
            if label not in base.taxonomy.names:
                raise BadInput(f"{answer.id!r}: accepts a label outside the taxonomy: relabel it")
            example = Example(message.id, message.text, label)
            new[example.key] = _New(example, answer)
    return list(new.values())


def _when(sha256: str, answer: Answer) -> tuple[str, str]:
    return answer.decided_at or "", sha256


def _decide(draft: _Draft, part: str, id_: str, answer: Answer, *, by: Message | None) -> None:
    if part == HOLDOUT and answer.purpose != _DRAWN:
        # A model chose this message, and its doubt must not change what models are judged by.
        draft.counts["holdout_decisions_left"] += 1
        return
    rows = draft.parts[part]
    if id_ not in rows:  # dropped by the decision about a copy
        return
    if answer.decision == "drop":
        del rows[id_]
        draft.counts[f"{part}_dropped"] += 1
        return
    # "accept" confirms the label that the reviewer saw, which may not be the dataset's any more.
    shown = by.label if by is not None else None
    label = answer.new_label or shown or rows[id_].label
    changed = label != rows[id_].label
    origin = LabelOrigin(answer.label_source, answer.guideline)
    if changed or draft.origins.get(id_) != origin:
        draft.counts[f"{part}_{'relabelled' if changed else 'confirmed'}"] += 1
    rows[id_] = replace(rows[id_], label=label)
    draft.origins[id_] = origin


def _load_cleaner(base: Dataset, names: str | None, *, needed: bool) -> Cleaner:
    """Return the cleaner for new messages, if there are any. Raises BadInput."""
    if not needed and names is None:
        return Cleaner()
    by = cleaning_of(base)["redact names"]
    if by is not None and names is None:
        raise BadInput(
            f"{base.directory}: names in it were redacted by {describe_names(by)}: give it with "
            "--redact-names, or the model would learn names in new messages"
        )
    return cleaner_of(base, names=names)


def _place(
    draft: _Draft,
    new: Sequence[_New],
    held: Sequence[Example],
    pool: Sequence[Example],
    base: Dataset,
) -> None:
    """Put new messages into their splits."""
    if not new:
        return
    settings = base.record.get("settings") or {}
    known = [*held, *pool, *(each for rows in draft.parts.values() for each in rows.values())]
    part_of = {each.key: part for part, rows in draft.parts.items() for each in rows.values()}
    # Including rows that an audit removed: both adapters are evaluated on the earlier hold-out too.
    part_of |= {each.key: POOL for each in pool} | {each.key: HOLDOUT for each in held}
    part_of_id = {id_: part for part, rows in draft.parts.items() for id_ in rows}
    part_of_id |= {each.id: POOL for each in pool} | {each.id: HOLDOUT for each in held}
    by_key = {each.example.key: each for each in new}
    keys = sorted(part_of.keys() | by_key.keys())
    near = near_clusters(keys, similarity=SIMILARITY)
    clusters = [[keys[at] for at in cluster] for cluster in near]
    taken = set(part_of_id)
    messages = ((each.key, each.message) for each in (*known, *(one.example for one in new)))
    for cluster in unite_copies(clusters, messages):
        members = [by_key[key] for key in cluster if key in by_key]
        drawn = [each for each in members if each.answer.purpose == _DRAWN]
        if 0 < len(drawn) < len(members):  # the chosen ones cannot be learnt or held out now
            draft.counts["new_near_another_part"] += len(members) - len(drawn)
            members = drawn
        if members:
            there = {part_of[key] for key in cluster if key in part_of}
            # A message may come again in other words under its id.
            there |= {
                part_of_id[each.example.id] for each in members if each.example.id in part_of_id
            }
            part = _part(members, there, settings)
            for member in members if part else ():
                id_ = _free_id(member.example, taken)
                assert part is not None
                draft.parts[part][id_] = replace(member.example, id=id_)
                draft.origins[id_] = LabelOrigin(
                    member.answer.label_source, member.answer.guideline
                )
            what = f"new_in_{part}" if part else "new_near_another_part"
            draft.counts[what] += len(members)


def _part(members: Sequence[_New], there: set[str], settings: Mapping[str, Any]) -> str | None:
    """Return the split of new messages that are near each other (all drawn or all chosen) and near
    messages in the splits ``there``, or None to leave them out."""
    if there:
        return there.pop() if len(there) == 1 and there.isdisjoint({HOLDOUT, POOL}) else None
    if members[0].answer.purpose != _DRAWN:
        return TRAIN
    shares = {name: settings.get(name) or usual for name, usual in _SHARES.items()}
    key = min(member.example.key for member in members)
    at = int(shuffle_key(0, f"version\n{key}")[:12], 16) / 16**12
    return HOLDOUT if at < shares["holdout_share"] / sum(shares.values()) else VALIDATION


def _free_id(example: Example, taken: set[str]) -> str:
    """Return the message's id, or one derived from its text if another message has that id."""
    id_ = example.id
    if id_ in taken:
        id_ = f"m-{message_sha256(example.message)[:16]}"
    taken.add(id_)
    return id_


def _write(
    draft: _Draft,
    base: Dataset,
    outcomes: Mapping[str, Answer],
    taught: Taught | None,
    out: Path,
) -> Dataset:
    # Rows keep their order, so that an unchanged hold-out is byte-identical.
    splits = {part: tuple(rows.values()) for part, rows in draft.parts.items()}
    _refuse_empty(splits, base)
    holdout_texts = texts_sha256(splits[HOLDOUT])
    kept = {
        name: base.record[name]
        for name in ("sources", "holdout_source", "label_map")
        if name in base.record
    }
    if split := base.record.get("split"):
        added = sum(draft.counts[f"new_in_{part}"] for part in SPLITS)
        kept["split"] = {**split, "added": split.get("added", 0) + added}
    done = cleaning_of(base)  # to the earlier rows, and to the new ones by the same cleaner
    with building(out) as directory:
        files = [(LABEL_SOURCES, *source_lines(splits, draft.origins))]
        if taught is not None:
            files += keep_taught(taught, draft.parts[HOLDOUT])
        extra = write_extra_files(directory, files)
        dataset = write_dataset(
            directory,
            name=base.name,
            taxonomy=base.taxonomy,
            splits=splits,
            redaction=base.redaction,
            # Most of the hold-out is the earlier one. Without its openings, the error of a whole
            # sequence of proposals would start again with every message that joins or leaves it.
            openings=merge_openings(
                list_openings(base), earlier_openings(out, holdout_texts, (base.directory,))
            ),
            settings=dict(base.record.get("settings") or {}),
            **describe_cleaning(splits, done["redact names"]),
            **kept,
            label_sources=count_sources(splits, draft.origins),
            version={
                "rule": RULE,
                "of": base.digest,
                "decisions": len(outcomes),
                "changes": dict(sorted(draft.counts.items())),
            },
            decisions={"files": [], "made": list(_made(draft))},
            extra_files=extra,
        )
    return replace(dataset, directory=out)


def _made(draft: _Draft) -> Iterator[dict[str, Any]]:
    """Yield the rows of training and validation with a reviewer's label, in the manifest's form."""
    for part in (TRAIN, VALIDATION):
        for id_ in draft.parts[part]:
            if draft.origins.get(id_, LabelOrigin()).source == "person":
                label = draft.parts[part][id_].label
                yield {
                    "id": id_, "decision": "accept", "from": label, "to": label, "by": "",
                    "note": "", "copies": 0,
                }  # fmt: skip


def _refuse_empty(splits: Mapping[str, Sequence[Example]], base: Dataset) -> None:
    missing = set(base.taxonomy.names) - {each.label for each in splits[TRAIN]}
    if missing:
        raise BadInput(
            f"these decisions leave no {TRAIN} message of {', '.join(sorted(missing))}: remove "
            "the label from the taxonomy, or label more messages for it"
        )
