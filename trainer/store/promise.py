"""What a split can show, before anything is trained: whether its validation messages can prove the
promised precision, and what the gate can conclude from its hold-out.

The numbers come from the functions that set thresholds and judge in the gate, asked with imagined
counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trainer.statistics.figures import LabelFigures
from trainer.statistics.metrics import messages_to_show
from trainer.statistics.thresholds import FEWEST_VALIDATION, FOLD_LEVEL, fewest_rows
from trainer.store.gate import judge_accuracy, judge_label
from trainer.store.rules import GateRules

PRECISION = 0.95
_AIM = 0.03
"""An adapter is planned that is so much more accurate than the gate's floor."""


@dataclass(frozen=True, slots=True)
class SplitPower:
    """What a split can show.

    ``predictions`` are the messages that set thresholds with ``kind = "embedding-linear"``, and
    ``validation`` those with other kinds; ``fewest`` (``fewest_by_folds``) without a mistake
    prove the promised ``precision``. Of ``holdout`` messages ``first_right`` have to be right or in
    review with a first adapter, and ``later_right`` with a later one (None: all are too few); about
    ``enough`` are needed for one that is three points better than the gate's floor ``accuracy``.
    ``unproven`` are the labels whose recall so few held-out messages cannot show;
    ``fewest_of_a_label`` could. All counts are of independent messages; ``grouped``: some are not.
    ``by_folds``: the model is of the kind whose thresholds ``predictions`` set.
    """

    precision: float
    fewest: int
    fewest_by_folds: int
    validation: int
    predictions: int
    holdout: int
    accuracy: float
    first_right: int | None
    later_right: int | None
    enough: int | None
    unproven: tuple[str, ...]
    fewest_of_a_label: int | None
    grouped: bool = False
    by_folds: bool = False

    @property
    def sentences(self) -> list[str]:
        """The same in plain sentences, with what to do."""
        more = ["Messages that belong together count as fewer, so it takes more of them."]
        return [*_about_review(self), *_about_gate(self), *(more if self.grouped else ())]


def what_split_can_show(
    train: Mapping[str, int],
    validation: Mapping[str, int],
    holdout: Mapping[str, int],
    promised_precision: float = PRECISION,
    rules: GateRules | None = None,
    *,
    grouped: bool = False,
    by_folds: bool = False,
) -> SplitPower:
    """Return what a split can show. The three mappings are messages per label, as in the manifest
    of a dataset; ``rules`` are those of the gate, ``grouped`` is whether threads or customers are
    known, ``by_folds`` whether the kind of model is "embedding-linear"."""
    rules = rules or GateRules()
    learnt, validating, held = (sum(each.values()) for each in (train, validation, holdout))
    folds = validating < FEWEST_VALIDATION
    return SplitPower(
        precision=promised_precision,
        fewest=fewest_rows(promised_precision),
        fewest_by_folds=fewest_rows(promised_precision, FOLD_LEVEL),
        validation=validating,
        predictions=validating + learnt if folds else validating,
        holdout=held,
        accuracy=rules.accuracy,
        first_right=_fewest_right(held, rules, first=True),
        later_right=_fewest_right(held, rules, first=False),
        # Below 1, however high the floor is.
        enough=messages_to_show(min(0.999, rules.accuracy + _AIM), rules.accuracy),
        unproven=tuple(
            label
            for label, count in holdout.items()
            if label not in rules.label_unproven and not _label_can_pass(label, count, rules)
        ),
        fewest_of_a_label=next(
            (count for count in range(1, 1000) if _label_can_pass("", count, rules)), None
        ),
        grouped=grouped,
        by_folds=by_folds,
    )


def _fewest_right(messages: int, rules: GateRules, *, first: bool) -> int | None:
    """Return how many of the hold-out's messages have to be right to pass the accuracy's row."""

    def passes(right: int) -> bool:
        return judge_accuracy(right / messages, messages, rules, first=first).passed

    if not messages or not passes(messages):
        return None
    return bisect_left(range(messages), True, key=passes)


def _label_can_pass(label: str, messages: int, rules: GateRules) -> bool:
    perfect = LabelFigures(label, 1.0, 1.0, 1.0, messages)
    return judge_label(perfect, rules).passed


def _about_review(found: SplitPower) -> Iterator[str]:
    if found.validation >= max(found.fewest, FEWEST_VALIDATION):
        return
    if found.by_folds and found.predictions >= found.fewest_by_folds:
        return
    promise = f"{100 * found.precision:.4g} % of the labels without review are right"
    if found.validation >= found.fewest:
        text = (
            f"{found.validation:,} validation messages can prove that {promise} only for the "
            "surest messages: many others go to review"
        )
    else:
        text = (
            f"{found.validation:,} validation messages are too few to prove that {promise} (it "
            f"takes {found.fewest:,}, all of them right): with them alone every message goes to "
            "review"
        )
    missing = found.fewest_by_folds - found.predictions
    if (
        found.predictions == found.validation < FEWEST_VALIDATION
    ):  # a teacher's labels, which prove nothing
        help_ = (
            f"Have reviewers decide on more messages, drawn at random: {FEWEST_VALIDATION:,} that "
            "validate prove it for most"
        )
        if found.validation < found.fewest:
            help_ += "; or promise less (train --set review_precision=0.8)"
    elif missing > 0:
        help_ = (
            f"Label at least {missing:,} more messages, or promise less (train --set "
            "review_precision=0.8)"
        )
    else:
        help_ = (
            f'kind = "embedding-linear" can prove it with all {found.predictions:,} messages that '
            "are not held out, by predictions of models that did not learn them"
        )
    yield f"{text}. {help_}."


def _about_gate(found: SplitPower) -> Iterator[str]:
    floor = f"{100 * found.accuracy:.4g} %"
    if not found.holdout:
        yield "No message is held out, so nothing can be evaluated or published."
        return
    if found.first_right is None:
        return
    text = (
        f"{found.holdout:,} held-out messages: a first adapter passes the gate's accuracy with "
        f"{found.first_right:,} of {found.holdout:,} right or in review"
    )
    if found.later_right is None:
        text += f"; to show {floor}, as its successors must, all of them right are too few"
    elif found.later_right == found.holdout:
        text += (
            f"; a later one has to show {floor}, which only {found.holdout:,} of "
            f"{found.holdout:,} would"
        )
    else:
        text += f"; a later one has to show {floor}, which takes {found.later_right:,}"
    if found.enough is not None and found.enough > found.holdout:
        text += (
            f". If {100 * (found.accuracy + _AIM):.4g} % of the messages are right or in review, "
            f"hold out about {found.enough:,}"
        )
    yield f"{text}."
    if found.unproven and found.fewest_of_a_label is not None:
        names = ", ".join(found.unproven[:5])
        more = f" and {len(found.unproven) - 5} more" if len(found.unproven) > 5 else ""
        yield (
            f"Too few held-out messages to show the recall of {names}{more}: it takes "
            f"{found.fewest_of_a_label:,} of each. A first adapter passes without; for a later one "
            "hold out more, or name them in the gate's label_unproven."
        )
