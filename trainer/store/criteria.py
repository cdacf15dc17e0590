"""The gate's criteria that messages decide: each label's recall, and the current adapter.

Both are judged by tests, and not by the share that was found: on fifteen messages a label that is
good enough falls below its floor by luck, and of eleven such labels one nearly always does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainer.artifacts.evaluation import EvaluationRecord
from trainer.statistics.figures import LabelFigures, in_points
from trainer.statistics.metrics import ALPHA, Discordance, highest_share
from trainer.statistics.noninferiority import (
    lowest_difference,
    non_inferiority_p,
    required_messages,
    smallest_margin,
)
from trainer.store.gate_rules import GateRules
from trainer.store.verdict import Comparison, Criterion, criterion


def judge_labels(
    labels: Sequence[str], figures: EvaluationRecord, rules: GateRules
) -> Iterator[Criterion]:
    """Yield a row for each label's recall.

    By default a label fails where the upper end of its recall's interval is below the floor: the
    exact one of Clopper & Pearson (1934), one-sided at 5 % over all labels together (Bonferroni).
    So a run whose labels all reach the floor fails at most once in twenty times.
    """
    per_label = {found.label: found for found in figures.per_label}
    wanted = f"at least {rules.label_recall:.4f}"
    for label in labels:
        found = per_label.get(label)
        if found is None or found.support < rules.label_support:
            yield criterion(
                f"recall of {label}",
                f"{wanted} of {rules.label_support} messages or more",
                f"{found.support if found else 0} messages in the hold-out",
                passed=False,
            )
        elif rules.label_recall_by == "point":
            text = f"{found.recall:.4f} of {found.support}"
            passed = found.recall >= rules.label_recall
            yield criterion(f"recall of {label}", wanted, text, passed)
        else:
            yield _judge_upper(found, rules.label_recall, ALPHA / len(labels))


def _judge_upper(found: LabelFigures, floor: float, alpha: float) -> Criterion:
    upper = highest_share(round(found.recall * found.support), found.support, alpha)
    text = f"{upper:.4f} (point {found.recall:.4f} of {found.support})"
    if highest_share(0, found.support, alpha) >= floor:
        text += "; too few messages to fail"
    return criterion(
        f"recall of {found.label}, upper end of its interval",
        f"at least {floor:.4f}",
        text,
        upper >= floor,
    )


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
    found = Discordance(against.only_new_right, against.only_current_right, against.messages)
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
        f"not enough messages to tell: about {required_messages(found.share, margin):,} would, for "
        f"an equal one; these tell {in_points(smallest_margin(found.total, found.share))} "
        f"(non_inferiority_margin)"
    )


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f} points"
