"""The gate's criteria that messages decide: each label's recall, the precision of labels that
nobody reviews, and the current adapter.

Each has to be shown, by a test: too few messages show nothing, and the row says how many would.
Messages that belong together (``group``) count as fewer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from trainer.artifacts.evaluation import EvaluationRecord
from trainer.statistics.figures import LabelFigures, in_points
from trainer.statistics.metrics import ALPHA, Discordance, highest_share, lowest_share
from trainer.statistics.noninferiority import (
    lowest_difference,
    messages_for,
    non_inferiority_p,
    smallest_margin,
)
from trainer.statistics.promise import fewest_rows
from trainer.store.gate_rules import GateRules
from trainer.store.verdict import Comparison, Criterion, criterion

_MOST_MESSAGES = 20


def judge_labels(
    labels: Sequence[str], figures: EvaluationRecord, rules: GateRules
) -> Iterator[Criterion]:
    """Yield a row for each label's recall.

    By default a label passes where its recall is shown to reach the floor: the lower end of the
    exact interval of Clopper & Pearson (1934), one-sided at 5 %. Every label has to pass, so that
    a run with one below the floor passes at most once in twenty times, however many labels there
    are. A label of ``label_unproven`` fails only where it is shown to miss the floor.
    """
    per_label = {found.label: found for found in figures.per_label}
    for label in labels:
        found = per_label.get(label) or LabelFigures(label, 0.0, 0.0, 0.0, 0)
        if rules.label_recall_by == "point":
            text = f"{found.recall:.4f} of {found.support}"
            passed = found.support > 0 and found.recall >= rules.label_recall
            yield criterion(
                f"recall of {label}", f"at least {rules.label_recall:.4f}", text, passed
            )
        else:
            yield _judge_recall(found, rules.label_recall, label in rules.label_unproven)


def _judge_recall(found: LabelFigures, floor: float, may_go_unproven: bool) -> Criterion:
    total = found.support / found.effect
    hits = found.recall * total
    low, high = lowest_share(hits, total, ALPHA), highest_share(hits, total, ALPHA)
    text = f"{low:.4f} (point {found.recall:.4f} of {found.support})"
    shown, missed = low >= floor, high < floor
    if missed:
        text += f"; at most {high:.4f}"
    elif not shown:
        text += f"; not shown: {_messages_that_show(found, floor)}"
    if not shown and may_go_unproven and not missed:
        text += "; allowed by label_unproven"
    return criterion(
        f"recall of {found.label}, lower end of its interval",
        f"at least {floor:.4f}",
        text,
        shown or (may_go_unproven and not missed),
    )


def _messages_that_show(found: LabelFigures, floor: float) -> str:
    """Return how many messages of a label could show its recall, if more are like these; of none,
    how many would if all were right."""
    effect = found.effect
    fewest = math.ceil(fewest_rows(floor) * effect) if 0 < floor < 1 else None
    if fewest is None or (found.support and found.recall <= floor):
        return "the share found is below the floor"
    if found.support < fewest:
        return f"at least {fewest:,} messages could, all of them right"
    for total in range(found.support, _MOST_MESSAGES * found.support):
        hits = found.recall * total
        if lowest_share(hits / effect, total / effect, ALPHA) >= floor:
            return f"about {total:,} messages would, with this share"
    return f"more than {_MOST_MESSAGES} times as many would be needed"


def judge_promise(figures: EvaluationRecord) -> Criterion:
    """Return the row of the precision that the adapter promises of labels that nobody reviews.

    It has to be shown, one-sided at 5 %, by validation and hold-out together, at the adapter's own
    thresholds. Of one whose threshold was chosen by the point value, which keeps its promise half
    of the time, it may not be refuted.
    """
    found, name = figures.promise, "precision of labels without review"
    if found is None:
        return criterion(name, "as promised", "the adapter promises none", passed=True)
    share = f"{found.right / found.accepted:.4f}" if found.accepted else "nothing"
    text = f"{share} of {found.accepted} messages of validation and hold-out"
    if not found.accepted:  # everything goes to review, and no promise is broken
        return criterion(name, f"at least {found.precision:.4f}", text, passed=True)
    if found.by == "point":
        wanted = f"not shown to be below {found.precision:.4f} (p < {ALPHA:g})"
        passed, p = found.refuted >= ALPHA, found.refuted
    else:
        wanted = f"shown to be at least {found.precision:.4f} (p < {ALPHA:g})"
        passed, p = found.shown < ALPHA, found.shown
    text += f"; p = {p:.2g}"
    if not passed:
        text += "; train again with a higher review_precision or review_floor, or more validation"
    return criterion(name, wanted, text, passed)


def judge_regression(
    against: Comparison | str | None, rules: GateRules, *, allow_unpaired: bool
) -> Criterion:
    """Return the row of the current adapter: the new one has to be shown to be less than the
    margin worse, on the same messages (Tango's test, see ``non_inferiority_p``). One that is
    significantly worse by less fails too (McNemar's test): nothing is gained by it.

    ``against`` is the comparison, or why there can be none, or None where no adapter is current.
    """
    name = "against the current adapter"
    margin = rules.non_inferiority_margin
    wanted = (
        f"shown to be less than {in_points(margin)} worse, not significantly worse (p < {ALPHA:g})"
    )
    if against is None:
        return criterion(name, wanted, "no adapter is current", passed=True)
    if isinstance(against, str):
        allowed = "; allowed by --allow-unpaired" if allow_unpaired else ""
        return criterion(name, wanted, f"impossible: {against}{allowed}", allow_unpaired)
    found = Discordance(
        against.only_new_right, against.only_current_right, against.messages, against.design_effect
    )
    p = non_inferiority_p(found, margin)
    worst = _signed(lowest_difference(found))
    text = (
        f"right where the other is wrong: {found.a_only} new, {found.b_only} current, of "
        f"{found.total}; {_signed(found.difference)}, at worst {worst} (95 %); p = {p:.2g}"
    )
    is_worse = against.is_worse and against.p_value < ALPHA
    if is_worse:
        text += f"; significantly worse (McNemar's p = {against.p_value:.2g})"
    elif p >= ALPHA:
        text += f"; {_explain(found, margin)}"
    return criterion(name, wanted, text, p < ALPHA and not is_worse)


def _explain(found: Discordance, margin: float) -> str:
    return (
        f"not enough messages to tell: about {messages_for(found, margin):,} would, for "
        f"an equal one; these tell {in_points(smallest_margin(found.independent, found.share))} "
        f"(non_inferiority_margin)"
    )


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f} points"
