"""Where two runs answer differently: label by label, confusion by confusion, message by message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainer.report import numbers
from trainer.report.against.facts import Both, TwoRuns, discordance
from trainer.report.bars import bar, span
from trainer.report.records import Section
from trainer.report.texts import readable, show_text
from trainer.statistics.figures import LabelFigures
from trainer.statistics.metrics import ALPHA, binomial_test, holm, mcnemar_exact, wilson
from trainer.statistics.paired import paired_interval

MOST_CONFUSIONS = 15
MOST_MESSAGES = 60
AT_ONCE = 10


def labels_section(two: TwoRuns) -> Section:
    """Return each label's recall and F1 in both runs, and the paired test of its messages."""
    title = "Label by label"
    mine, theirs = two.mine.evaluation, two.theirs.evaluation
    if mine is None or theirs is None:
        return Section("label_changes", title, missing=f"Nothing to compare: {two.apart}.")
    others = {figures.label: figures for figures in theirs.per_label}
    found = {label: discordance(answers) for label, answers in _by_label(two.shared).items()}
    tested = [label for label in mine.labels if label in found]
    adjusted = dict(zip(tested, holm([mcnemar_exact(found[each]) for each in tested]), strict=True))
    rows: list[dict[str, Any]] = []
    for figures in mine.per_label:
        other = others.get(figures.label)
        pair = found.get(figures.label)
        rows.append(
            {
                "label": figures.label,
                "support": numbers.count(figures.support),
                "mine": _recall(figures),
                "theirs": _recall(other) if other else None,
                "f1": numbers.decimal(figures.f1, 2),
                "other_f1": numbers.decimal(other.f1 if other else None, 2),
                "difference": numbers.points(figures.recall - other.recall if other else None),
                "interval": numbers.points_interval(paired_interval(pair) if pair else None),
                "p": numbers.probability(adjusted.get(figures.label)),
                "is_clear": adjusted.get(figures.label, 1.0) < ALPHA,
                "order": figures.recall - other.recall if other else 0.0,
            }
        )
    rows.sort(key=lambda row: (row["order"], row["label"]))
    gone = sorted(set(others) - {figures.label for figures in mine.per_label})
    content = {"rows": rows, "names": two.names, "paired": bool(two.shared), "gone": gone}
    return Section("label_changes", title, content)


def confusions_section(two: TwoRuns) -> Section:
    """Return the confusions that appeared, grew, shrank and vanished, the largest change first."""
    title = "Confusions that came and went"
    if not two.shared:
        return Section("confusion_changes", title, missing=f"Nothing to compare: {two.apart}.")
    came, left = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    now, before = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for each in two.shared:
        cells = [(str(each.label), answer.predicted) for answer in (each.mine, each.theirs)]
        wrong = [label != predicted for label, predicted in cells]
        now[cells[0]] += wrong[0]
        before[cells[1]] += wrong[1]
        if cells[0] != cells[1]:
            came[cells[0]] += wrong[0]
            left[cells[1]] += wrong[1]
    cells_changed = [cell for cell in {*came, *left} if came[cell] or left[cell]]
    cells_changed.sort(
        key=lambda cell: (-abs(now[cell] - before[cell]), -came[cell] - left[cell], cell)
    )
    rows = [
        {
            "label": cell[0],
            "other": cell[1],
            "mine": numbers.count(now[cell]),
            "theirs": numbers.count(before[cell]),
            "kind": _kind(now[cell], before[cell]),
            "came": numbers.count(came[cell]),
            "left": numbers.count(left[cell]),
            "p": numbers.probability(binomial_test(came[cell], came[cell] + left[cell], 0.5)),
        }
        for cell in cells_changed
    ]
    kinds = Counter(row["kind"] for row in rows)
    return Section(
        "confusion_changes",
        title,
        {
            "names": two.names,
            "kinds": [
                (kind, kinds[kind]) for kind in ("appeared", "grew", "moved", "shrank", "vanished")
            ],
            "rows": rows[:MOST_CONFUSIONS],
            "more": max(0, len(rows) - MOST_CONFUSIONS),
        },
    )


def messages_section(two: TwoRuns) -> Section:
    """Return the messages that only one run has right, the surest answers first."""
    title = "Messages that changed sides"
    if not two.shared:
        return Section("message_changes", title, missing=f"Nothing to compare: {two.apart}.")
    lost = [each for each in two.shared if _right(each) == (False, True)]
    won = [each for each in two.shared if _right(each) == (True, False)]
    lost.sort(key=lambda each: (-each.mine.confidence, each.id))
    won.sort(key=lambda each: (-each.theirs.confidence, each.id))
    return Section(
        "message_changes",
        title,
        {
            "names": two.names,
            "at_once": AT_ONCE,
            "lost": [_message(two, each) for each in lost[:MOST_MESSAGES]],
            "won": [_message(two, each) for each in won[:MOST_MESSAGES]],
            "all_lost": numbers.counted(len(lost), "message"),
            "all_won": numbers.counted(len(won), "message"),
            "with_texts": two.texts is not None,
        },
    )


def _by_label(answers: Sequence[Both]) -> dict[str, tuple[Both, ...]]:
    found: dict[str, list[Both]] = {}
    for each in answers:
        if each.label is not None:
            found.setdefault(each.label, []).append(each)
    return {label: tuple(rows) for label, rows in found.items()}


def _recall(figures: LabelFigures) -> dict[str, Any]:
    total = figures.support / figures.effect
    low, high = wilson(figures.recall * total, total)
    return {
        "written": numbers.percent(figures.recall),
        "interval": numbers.interval((low, high)),
        "span": span(low, high, figures.recall),
    }


def _kind(now: int, before: int) -> str:
    if not before:
        return "appeared"
    if not now:
        return "vanished"
    return "grew" if now > before else "shrank" if now < before else "moved"


def _right(each: Both) -> tuple[bool, bool]:
    return each.mine.predicted == each.label, each.theirs.predicted == each.label


def _message(two: TwoRuns, each: Both) -> dict[str, Any]:
    mine, theirs = each.mine, each.theirs
    return {
        "id": readable(each.id),
        "label": str(each.label),
        "mine": mine.predicted,
        "theirs": theirs.predicted,
        "mine_confidence": numbers.sureness(mine.confidence),
        "theirs_confidence": numbers.sureness(theirs.confidence),
        "bar": bar(max(mine.confidence, theirs.confidence), "s2"),
        "text": show_text(two.texts, each.id),
    }
