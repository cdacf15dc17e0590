"""The gate's criteria that messages decide: each label's recall, the precision of labels that
nobody reviews, and the current adapter.

Each has to be shown, by a test: too few messages show nothing, and the row says how many would.
Messages that belong together (``group``) count as fewer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from trainer.artifacts.evaluation import Accepted, EvaluationRecord, KeptPromise
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

PROMISE = "precision of labels without review"

_SHOWN, _AGAINST = 0.06, 0.2
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
    """Return the row of the precision that the adapter promises of labels that nobody reviews; one
    that promises none passes."""
    if figures.promise is None:
        return criterion(PROMISE, "as promised", "the adapter promises none", passed=True)
    return judge_kept_promise(figures.promise)


def judge_kept_promise(found: KeptPromise) -> Criterion:
    """Return the row of a promise.

    Validation has to show it at the adapter's own threshold, as it did when the threshold was
    chosen: one that is lower than that fails. The hold-out must not speak against it (one-sided,
    20 %: a threshold that was chosen by its lower bound lies well above the promise, so that few
    honest ones fail). Validation is asked for 6 %, where the choice was for 5 %: scored again, a
    row next to the threshold may fall to its other side. A promise that is just broken passes both
    in at most 0.06 * 0.8 of all cases. Of a threshold by the point value, which keeps its promise
    half of the time, nothing is shown, and the hold-out may not refute it (5 %).
    """
    by_point = found.by == "point"
    against = ALPHA if by_point else _AGAINST
    wanted = f"at least {found.precision:.4f}, not refuted by the hold-out (p < {against:g})"
    if not by_point:
        wanted += f", shown by validation (p < {_SHOWN:g})"
    told = [_tell(found.validation, "validation"), _tell(found.holdout, "hold-out")]
    text = "; ".join(told)
    shown = by_point or not found.validation.messages or found.validation.p < _SHOWN
    refuted = found.holdout.messages > 0 and found.holdout.p < against
    if not shown:
        text += "; its threshold is lower than validation proves: train again"
    elif refuted:
        text += "; train again with a higher review_precision or more validation messages"
    return criterion(PROMISE, wanted, text, shown and not refuted)


def _tell(accepted: Accepted, where: str) -> str:
    if not accepted.messages:
        return f"{where}: all go to review"
    share = accepted.right / accepted.messages
    return f"{where}: {share:.4f} of {accepted.messages}, p = {accepted.p:.2g}"


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
