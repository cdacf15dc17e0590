"""Advice about a dataset's labels, from its messages and the decisions since."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from trainer.advice.findings import (
    NONE,
    DecidedMessage,
    LabelFound,
    PairFound,
    SplitFound,
    Vectors,
    find_contradictory,
    find_missing,
    find_pairs,
    find_split,
    gather,
)
from trainer.dataset.folder import Dataset, open_dataset, open_holdout
from trainer.propose.version import read_new_messages
from worker.common.review_files import read_answers
from worker.contract.exchange import Advice, AdviceMessage, Answer, Finding
from worker.contract.text import message_sha256
from worker.contract.timestamps import rfc3339_now

Embed = Callable[[Sequence[str]], Vectors]

FEW = 50
"""A label with fewer examples is reported."""

MINUTES = 0.25
"""The time of one decision."""

_LISTED = 200
_DOUBLY = 100


Show = Callable[..., tuple[AdviceMessage, ...]]
"""Makes the messages of a finding: of digests, and the part of each (0 where none is given)."""


def advise(
    dataset: Dataset,
    answers: Sequence[Answer],
    texts: Mapping[str, tuple[str, str]],
    *,
    guideline: str | None,
    embed: Embed | None,
    with_texts: bool,
    holdout_labels: Mapping[str, str] | None = None,
) -> Advice:
    """Return the findings, those about whole labels first.

    ``texts`` maps digests to (id, text) of messages that are not in the dataset; ``guideline`` is
    the current version; ``embed`` makes sentence embeddings, without which nothing is said about
    missing labels and labels to split. ``holdout_labels`` (by digest) are compared with an audit's
    blind labels. No text of the hold-out is shown.
    """
    examples = {
        message_sha256(each.message): each for each in (*dataset.train, *dataset.validation)
    }
    labels = {sha: each.label for sha, each in examples.items()}
    # Without the hold-out's texts: an audited message is listed by its id alone.
    known = dict(texts) | {sha: (each.id, each.message) for sha, each in examples.items()}
    decided = gather(answers, {**labels, **(holdout_labels or {})})
    names = dataset.taxonomy.names
    pairs = find_pairs(decided.values(), names)
    final = labels | {
        sha: each.outcome for sha, each in decided.items() if each.outcome is not None
    }

    def show(digests: Sequence[str], parts: Sequence[int] = ()) -> tuple[AdviceMessage, ...]:
        found = []
        for sha, part in list(zip(digests, parts or [0] * len(digests), strict=True))[:_LISTED]:
            id_, text = known.get(sha) or (decided[sha].id, None)
            found.append(
                AdviceMessage(
                    id=id_,
                    message_sha256=sha,
                    label=final.get(sha) or None,
                    text=text if with_texts else None,
                    part=part,
                )
            )
        return tuple(found)

    findings = [
        *(_pair(pair, show) for pair in pairs),
        *_shapes({sha: text for sha, (_, text) in known.items()}, final, names, embed, show),
        *(_contradictory(each, show)
          for each in find_contradictory(decided.values(), names, pairs)),
        *_few(dataset, names),
        *_outdated(decided, guideline, show),
        *_unsure(decided),
    ]  # fmt: skip
    return Advice(
        schema="advice/1",
        created_at=rfc3339_now(),
        dataset_name=dataset.name,
        dataset=dataset.digest,
        taxonomy=dataset.taxonomy.digest,
        guideline=guideline,
        decisions=sum(each.outcome is not None for each in decided.values()),
        doubly=sum(each.doubly for each in decided.values()),
        texts=with_texts,
        findings=tuple(findings),
    )


def _pair(pair: PairFound, show: Show) -> Finding:
    a, b = pair.labels
    of = f"{pair.disagreements} of {pair.messages}"
    if pair.alike:
        return Finding(
            kind="merge",
            labels=pair.labels,
            title=f"{a} and {b} look like one label.",
            evidence=f"Two reviewers disagree between just these two labels on {of} of their "
            "messages, which is close to guessing.",
            advice="Merge them, or describe the difference in the guideline, with examples of "
            "both, and have the messages below decided again.",
            gain="Neither reviewers nor a model can be right on these messages now; up to "
            f"{pair.disagreements / pair.messages:.0%} of both labels' messages would be.",
            cost=_cost(pair.messages) + " to decide again if they stay separate; none if merged.",
            figures={"disagreements": pair.disagreements, "messages": pair.messages},
            messages=show(pair.digests),
            p_value=pair.p_value,
        )
    return Finding(
        kind="confused",
        labels=pair.labels,
        title=f"Reviewers confuse {a} and {b}.",
        evidence=f"Two reviewers disagree between just these two labels on {of} of their messages.",
        advice="Add a sentence to the guideline that decides these cases, with two or three of the "
        "messages below as examples.",
        gain="A model can learn only what the reviewers agree on.",
        cost=_cost(pair.disagreements) + " to decide again.",
        figures={"disagreements": pair.disagreements, "messages": pair.messages},
        messages=show(pair.digests),
        p_value=pair.p_value,
    )


def _shapes(
    texts: Mapping[str, str],
    label_of: Mapping[str, str],
    names: Sequence[str],
    embed: Embed | None,
    show: Show,
) -> Iterator[Finding]:
    """Yield the labels that look like two, and those that are missing. ``texts`` and ``label_of``
    are by digest; the label is ``NONE`` if none fits."""
    if embed is None:
        return
    digests = sorted(texts)
    rows = embed([texts[sha] for sha in digests])
    place = {sha: at for at, sha in enumerate(digests)}
    of = {name: [sha for sha in digests if label_of.get(sha) == name] for name in names}
    vectors = [rows[[place[sha] for sha in of[name]]] for name in names]
    for split in find_split(vectors, names):
        yield _split(split, show(of[split.label], split.part.tolist()))
    none = [sha for sha in digests if label_of.get(sha) == NONE]
    kept = [sha for sha in digests if label_of.get(sha, NONE) != NONE]
    missing = find_missing(
        rows[[place[sha] for sha in none]],
        rows[[place[sha] for sha in kept]],
    )  # fmt: skip
    for found in missing:
        yield Finding(
            kind="missing",
            labels=(),
            title=f"{len(found.places)} messages that fit no label look like a new one.",
            evidence="They are closer to each other than to the messages of any label, and "
            f"{found.dropped} of the {found.decided} decided messages among and around them fit "
            "none.",
            advice="Read them, and add a label for them if a team should handle them.",
            gain="All of them are misclassified or sent to review now.",
            cost=_cost(FEW) + f" for the {FEW} examples that a label needs.",
            figures={"messages": float(len(found.places)), "decided": float(found.decided)},
            messages=show([none[at] for at in found.places]),
            p_value=found.p_value,
        )


def _split(split: SplitFound, messages: tuple[AdviceMessage, ...]) -> Finding:
    first, second = (int(size) for size in np.bincount(split.part, minlength=2))
    title = f"If one of the labels is really two, it may be {split.label}."
    evidence = "This is the label most like two; a sound taxonomy has such a label too."
    if split.separate:
        title = f"{split.label} looks like two labels."
        evidence = "They are as separate as two labels are."
    return Finding(
        kind="split",
        labels=(split.label,),
        title=title,
        evidence=f"Its messages fall into parts of {first} and {second}. They have "
        f"{split.links:.1f} neighbours in each other for each that they would have in another "
        f"label. {evidence}",
        advice="Read some of each part. If different teams handle them, make two labels; if not, "
        "leave it.",
        gain="Each team gets only the messages that are meant for it.",
        cost=_cost(first + second) + " to sort all of them; fewer if you keep the parts and review "
        "only the messages in between.",
        figures={"first": float(first), "second": float(second), "links": split.links},
        messages=messages,
    )


def _contradictory(found: LabelFound, show: Show) -> Finding:
    return Finding(
        kind="contradictory",
        labels=(found.label,),
        title=f"Reviewers do not agree what {found.label} is.",
        evidence=f"Two reviewers disagree on {found.disagreements} of the {found.messages} "
        "messages that one of them gave it, and not with one other label in particular.",
        advice="Rewrite its description: what belongs to it, what does not.",
        gain="A model can learn only what the reviewers agree on.",
        cost=_cost(found.disagreements) + " to decide again.",
        figures={"disagreements": found.disagreements, "messages": found.messages},
        messages=show(found.digests),
        p_value=found.p_value,
    )


def _few(dataset: Dataset, names: Sequence[str]) -> Iterator[Finding]:
    counts = Counter(each.label for each in dataset.train)
    of = shlex.quote(str(dataset.directory))
    for name in names:
        if counts[name] < FEW:
            yield Finding(
                kind="few",
                labels=(name,),
                title=f"{name} has few examples: {counts[name]}.",
                evidence=f"Below {FEW}, each further example still improves the model a lot.",
                advice=f"Find more messages for it (clerk-trainer tasks {of} --for learn "
                "--messages FILE --out FILE), or remove it if such messages are rare.",
                gain="Higher recall of it, and more confident answers for similar labels.",
                cost=_cost(FEW - counts[name]) + " that give this label.",
                figures={"examples": float(counts[name])},
                messages=(),
            )


def _outdated(
    decided: Mapping[str, DecidedMessage], guideline: str | None, show: Show
) -> Iterator[Finding]:
    old = [
        each
        for each in decided.values()
        if guideline and each.outcome is not None and each.guideline not in {guideline, None}
    ]
    if not old:
        return
    labels = Counter(each.outcome for each in old if each.outcome)
    versions = sorted({each.guideline or "" for each in old})
    yield Finding(
        kind="outdated",
        labels=tuple(name for name, _ in labels.most_common(3)),
        title=f"{len(old)} decisions are older than guideline {guideline}.",
        evidence=f"They were made by version {', '.join(versions)}.",
        advice="If the change affects these labels, have their messages decided again; if not, "
        "there is nothing to do.",
        gain="Old and new decisions that contradict each other make the model less certain.",
        cost=_cost(len(old)) + " for all of them.",
        figures={"decisions": float(len(old))},
        messages=show([each.message_sha256 for each in old]),
    )


def _unsure(decided: Mapping[str, DecidedMessage]) -> Iterator[Finding]:
    doubly = sum(each.doubly for each in decided.values())
    if doubly < _DOUBLY:
        yield Finding(
            kind="unsure",
            labels=(),
            title="Too few messages were decided by two reviewers to find confused labels.",
            evidence=f"There are {doubly}; a badly confused pair shows from about {_DOUBLY} on.",
            advice="Have the desk ask two reviewers about a share of the messages, or audit the "
            "hold-out blind.",
            gain="Advice about labels from reviewers' agreement, not from a model.",
            cost=_cost(_DOUBLY - doubly),
            figures={"doubly": float(doubly)},
            messages=(),
        )


def _cost(decisions: int) -> str:
    minutes = decisions * MINUTES
    time = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{max(1, round(minutes))} minutes"
    return f"{decisions:,} decisions, about {time} of a reviewer's time"


def advise_dataset(
    dataset: Path,
    decisions: Sequence[Path],
    messages: Sequence[Path],
    *,
    guideline: str | None,
    embeddings: Path | None,
    with_texts: bool,
) -> Advice:
    """Read everything and return the advice. The hold-out is opened, and the opening counted, only
    if there are decisions of an audit to compare. Raises BadInput, RecordRefused."""
    from trainer.model.embeddings import embed  # takes seconds to import

    opened = open_dataset(dataset)
    answers = [answer for path in decisions for answer in read_answers(path)]
    texts = {sha: (each.id, each.text) for sha, each in read_new_messages(messages).items()}
    held: dict[str, str] = {}
    if any(answer.audits_holdout for answer in answers):
        rows = open_holdout(opened, purpose="advise", subject=opened.digest)
        held = {message_sha256(each.message): each.label for each in rows}
    return advise(
        opened,
        answers,
        texts,
        guideline=guideline,
        embed=partial(embed, directory=embeddings) if embeddings else None,
        with_texts=with_texts,
        holdout_labels=held,
    )
