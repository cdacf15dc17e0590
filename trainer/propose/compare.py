"""Compare the proposed adapter with the one in service, message by message, and recommend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.artifacts.evaluation import PREDICTIONS, Prediction
from trainer.report.page import MANY_OPENINGS
from trainer.statistics.calibration import Bools
from trainer.statistics.figures import in_points
from trainer.statistics.metrics import ALPHA, Discordance, Groups, as_groups, count_discordant
from trainer.statistics.paired import (
    alpha_of,
    lowest_difference,
    not_wrong_unseen,
    paired_interval,
)
from trainer.store.rules import GateVerdict
from worker.contract.exchange import Answer, Figure, Verdict

OLD_HOLDOUT = "accuracy on the earlier hold-out"
AUDITED = "accuracy on its audited messages, by reviewers' labels"
NEW_HOLDOUT = "accuracy on the grown hold-out"
REVIEW = "share sent to review, on the earlier hold-out"
ALONE = "messages labelled right without review, on the earlier hold-out"
SUREST = "wrong labels without review, if both send as many to review as the current one"
_FEW_AUDITED = 50


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure and its counts: ``found`` counts the messages that only the proposed adapter gets
    right, and those that only the current one does (for reviews: that only it does not send)."""

    figure: Figure
    found: Discordance

    def is_better(self, alpha: float) -> bool:
        """Whether the proposed adapter is shown to be better (Tango's interval, one-sided)."""
        return lowest_difference(self.found, alpha) > 0

    @property
    def worse(self) -> bool:
        """Whether it is shown to be worse, one-sided at 5 % in each comparison."""
        return lowest_difference(self.found.turned, ALPHA) > 0


def compare(
    old: tuple[Path, Path], grown: tuple[Path, Path] | None, outcomes: Mapping[str, Answer]
) -> list[Compared]:
    """Compare two evaluations (proposed, current) on the old hold-out, on its audited labels, and
    on the grown hold-out, if there is one."""
    new, current = (PREDICTIONS.read(folder) for folder in old)
    both = new, current
    found = [
        _compare(OLD_HOLDOUT, *both, _is_right),
        _compare(REVIEW, *both, lambda each: not each.review, turned=True),
        _compare(ALONE, *both, lambda each: _is_right(each) and not each.review),
    ]
    surest = sum(not each.review for each in current)
    # If none or all go without review, there is nothing to rank.
    if 0 < surest < len(current):
        good = {id(each): is_good for some in both for each, is_good in _surest(some, surest)}
        found.append(_compare(SUREST, *both, lambda each: good[id(each)], turned=True))
    truth = {
        answer.id: answer.new_label or None
        for answer in outcomes.values()
        if answer.audits_holdout and answer.decision != "accept"
    }
    audited = [each for each in new if each.id in truth]
    if audited:
        found.append(
            _compare(AUDITED, audited, current, lambda each: each.predicted == truth[each.id])
        )
    if grown is not None:
        new, current = (PREDICTIONS.read(folder) for folder in grown)
        found.append(_compare(NEW_HOLDOUT, new, current, _is_right))
    return found


def _is_right(each: Prediction) -> bool:
    return each.predicted == each.label


def _surest(predictions: Sequence[Prediction], count: int) -> Iterator[tuple[Prediction, bool]]:
    confidence = np.array([each.confidence for each in predictions])
    correct = np.array([_is_right(each) for each in predictions], dtype=np.bool_)
    return zip(predictions, not_wrong_unseen(confidence, correct, count).tolist(), strict=True)


def _compare(
    name: str,
    new: Sequence[Prediction],
    current: Sequence[Prediction],
    does_well: Callable[[Prediction], bool],
    *,
    turned: bool = False,
) -> Compared:
    """Compare the answers to the messages that both adapters have answered."""
    of_id = {each.id: each for each in current}
    shared = sorted((each for each in new if each.id in of_id), key=lambda each: each.id)
    a = np.array([does_well(each) for each in shared], dtype=np.bool_)
    b = np.array([does_well(of_id[each.id]) for each in shared], dtype=np.bool_)
    return compare_answers(name, a, b, as_groups([each.group for each in shared]), turned=turned)


def compare_answers(
    name: str, new: Bools, current: Bools, groups: Groups | None, *, turned: bool = False
) -> Compared:
    """Compare for which messages the two adapters do well; ``turned``: the figure is the share for
    which they do not."""
    found = count_discordant(new, current, groups)
    low, high = paired_interval(found)
    shares = float(new.mean()), float(current.mean())
    if turned:
        shares, (low, high) = (1 - shares[0], 1 - shares[1]), (-high, -low)
    figure = Figure(
        name, len(new), *shares, shares[0] - shares[1], low, high, lower_is_better=turned
    )
    return Compared(figure, found)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, a headline, and the reasons."""

    verdict: Verdict
    headline: str
    reasons_for: tuple[str, ...]
    reasons_against: tuple[str, ...]


def judge(
    compared: Sequence[Compared], gate: GateVerdict, changes: Mapping[str, int], judged: int = 0
) -> Judgement:
    """Recommend a trial if the gate passes it, it is shown to be worse in no comparison of
    mistakes, and it is shown to be better in one. It is not recommended if fewer messages would be
    labelled right without review. ``judged`` is the number of adapters for which the earlier
    hold-out has been opened, the current one included.

    In a whole sequence of proposals that are as good as the current adapter, one is recommended by
    mistake with a probability of at most 5 %: each proposal spends a part of that (``alpha_of``),
    shared by its comparisons (Bonferroni).
    """
    # A smaller share of reviews alone is not a reason, since a lower threshold achieves it.
    shown = [each for each in compared if each.figure.name not in {ALONE, REVIEW}]
    # The adapter in service is counted in ``judged`` and is not a proposal.
    alpha = alpha_of(max(1, judged - 1)) / len(shown)
    better = [each for each in shown if each.is_better(alpha)]
    worse = [each for each in compared if each.worse]
    pro = [_sentence(each) for each in better]
    contra = [_sentence(each) for each in worse]
    contra += [
        f"The gate refuses it: {row.name}, {row.found}." for row in gate.criteria if not row.passed
    ]
    if gate.passed:
        pro.append("It passes the gate.")
    pro += [
        _sentence(each) for each in compared if each.figure.name == REVIEW and each.is_better(ALPHA)
    ]
    contra += [_equal_sentence(each) for each in shown if each not in better and not each.worse]
    contra += list(_caveats(compared, changes, judged))
    less_right = [each for each in worse if each.figure.name not in {REVIEW, ALONE, SUREST}]
    if not gate.passed or less_right:
        why = "worse than the adapter in service" if less_right else "it does not pass the gate"
        return Judgement("refused", f"No: {why}.", tuple(pro), tuple(contra))
    if not [each for each in better if each.figure.name != SUREST or not worse]:
        headline = "Not worth it: not better than the adapter in service, and a change has risks."
        return Judgement("not_worth_it", headline, tuple(pro), tuple(contra))
    if any(each.figure.name == ALONE for each in worse):
        headline = "Not worth it: it is right more often, but sends more to review."
        return Judgement("not_worth_it", headline, tuple(pro), tuple(contra))
    return Judgement("publish", "Yes: it is better, and it passes the gate.", tuple(pro),
                     tuple(contra))  # fmt: skip


def _sentence(each: Compared) -> str:
    figure, found = each.figure, each.found
    assert figure.current is not None
    assert figure.difference is not None
    assert figure.low is not None
    assert figure.high is not None
    if figure.name == REVIEW:
        word = "Fewer" if figure.difference < 0 else "More"
        return (
            f"{word} messages go to review: {figure.proposed:.1%} instead of "
            f"{figure.current:.1%} of {figure.messages:,}."
        )
    if figure.name == SUREST:
        word = "Fewer" if figure.difference < 0 else "More"
        return (
            f"{word} {figure.name}: {figure.proposed:.1%} against {figure.current:.1%} of "
            f"{figure.messages:,} messages (difference {_signed(figure.low)} to "
            f"{_signed(figure.high)}, 95 %)."
        )
    word, so = ("Fewer", "are so") if figure.name == ALONE else ("Less", "are right")
    word = "More" if figure.difference > 0 else word
    return (
        f"{word} {figure.name}: {figure.proposed:.1%} against {figure.current:.1%} of "
        f"{figure.messages:,} messages ({found.a_only} {so} only with the new one, "
        f"{found.b_only} only with the current one; difference {_signed(figure.low)} to "
        f"{_signed(figure.high)}, 95 %)."
    )


def _equal_sentence(each: Compared) -> str:
    figure = each.figure
    assert figure.low is not None
    assert figure.high is not None
    return (
        f"No difference is shown in {figure.name}: {figure.proposed:.1%} against "
        f"{figure.current or 0:.1%} ({_signed(figure.low)} to {_signed(figure.high)}, 95 %)."
    )


def _caveats(
    compared: Sequence[Compared], changes: Mapping[str, int], judged: int
) -> Iterator[str]:
    if judged > MANY_OPENINGS:
        yield (
            f"The hold-out has been used for {judged} adapters. It favours the one that was chosen "
            f"by it, and each further one needs stronger evidence (p < {alpha_of(judged - 1):.2g} "
            "for all comparisons). It grows by new messages that the desk draws at random for its "
            "audit."
        )
    audited = next((each.figure for each in compared if each.figure.name == AUDITED), None)
    if audited is None:
        yield "No label of the hold-out was audited: accuracy is measured by its labels as given."
    elif audited.messages < _FEW_AUDITED:
        yield f"Only {audited.messages} messages of the hold-out were audited."
    if lost := changes.get("decisions_without_text", 0):
        yield f"{lost:,} decisions could not be used, because their messages' texts are missing."


def _signed(share: float) -> str:
    return ("-" if share < 0 else "+") + in_points(abs(share))
