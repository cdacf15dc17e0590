"""Where the adapter errs: the confusion matrix, the labels, the surest mistakes.

Two labels are mixed up in one direction or in both, which asks for different work. One way:
messages of one label keep being answered with the other, hardly ever the reverse; the model lacks
examples of the first where it borders the second. Two way: each is taken for the other; the labels
overlap, and a clearer taxonomy helps before any data does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer import facts, numbers
from trainer.report.bars import bar, confusion_chart, span
from trainer.report.records import Block, Drawn, Input, Run, Section, lacking, small
from trainer.report.texts import readable, show_text
from trainer.statistics.metrics import ALPHA, binomial_test

MOST_PAIRS = 12
MOST_ERRORS = 100
AT_ONCE = 12

BALANCED = 1 / 3
FEWEST = 6
"""Mistakes from which on the test can reject at all, for two labels of one size."""

ONE_WAY = "one-way"
TWO_WAY = "two-way"
UNCLEAR = "too few to tell"

RULE = (
    "A pair is one-way when a two-sided exact binomial test rejects, at p < 0.05, that a mistake "
    "goes either way as often as the sizes of the two labels would have it; it is two-way when the "
    "test does not reject, the pair has six mistakes or more, and the rarer direction makes up at "
    "least a third of them; anything else is too few to tell. The p-values are not adjusted for "
    "the number of pairs: they sort the work, they prove nothing."
)


@dataclass(frozen=True, slots=True)
class Confusion:
    """A pair of labels with its mistakes: ``forth`` messages of ``label`` were answered with
    ``other``, ``back`` the reverse, and forth is the more frequent one for the labels' sizes."""

    label: str
    other: str
    forth: int
    back: int
    p: float
    kind: str

    @property
    def total(self) -> int:
        """Mistakes between the two labels."""
        return self.forth + self.back


def confusion_section(run: Run) -> Section:
    """Return the confusion matrix and its reading."""
    title = "What it mixes up"
    if run.evaluation is None:
        return lacking("confusion", title, Input.EVALUATION)
    labels, matrix = run.evaluation.labels, run.evaluation.confusion
    pairs = confused_pairs(labels, matrix)
    shown = [pair for pair in pairs if pair.total > 1][:MOST_PAIRS]
    reading = {
        "pairs": [(pair, numbers.probability(pair.p)) for pair in shown],
        "all_pairs": len(pairs),
        "mistakes": sum(pair.total for pair in pairs),
        "shown_mistakes": sum(pair.total for pair in shown),
    }
    blocks: list[Block] = [
        confusion_chart(labels, matrix),
        Drawn("confusion", reading),
        small(RULE),
    ]
    return Section("confusion", title, blocks)


def labels_section(run: Run) -> Section:
    """Return every label's precision, recall and F1, the weakest first."""
    title = "Label by label"
    if run.evaluation is None:
        return lacking("labels", title, Input.EVALUATION)
    rows = []
    for figures in sorted(run.evaluation.per_label, key=lambda label: (label.f1, label.label)):
        recall = facts.recall_interval(figures)
        precision = facts.precision_interval(run.evaluation, figures)
        rows.append(
            {
                "label": figures.label,
                "support": numbers.count(figures.support),
                "f1": numbers.decimal(figures.f1),
                "f1_bar": bar((figures.f1, "s3")),
                "precision": numbers.percent(figures.precision),
                "precision_span": span(*precision, figures.precision),
                "precision_interval": numbers.interval(precision),
                "recall": numbers.percent(figures.recall),
                "recall_span": span(*recall, figures.recall),
                "recall_interval": numbers.interval(recall),
            }
        )
    return Section("labels", title, [Drawn("labels", {"rows": rows})])


def errors_section(run: Run) -> Section:
    """Return the wrong answers, the surest first."""
    title = "Confidently wrong"
    if not run.predictions:
        return lacking("errors", title, Input.PREDICTIONS)
    wrong = [answer for answer in run.predictions if answer.label != answer.predicted]
    wrong.sort(key=lambda answer: (-answer.confidence, answer.id))
    shown = wrong[:MOST_ERRORS]
    return Section(
        "errors",
        title,
        [
            Drawn(
                "errors",
                {
                    "at_once": AT_ONCE,
                    "rows": [
                        {
                            "id": readable(answer.id),
                            "label": answer.label,
                            "predicted": answer.predicted,
                            "confidence": numbers.sureness(answer.confidence),
                            "bar": bar((answer.confidence, "s2")),
                            "review": answer.review,
                            "text": show_text(run.texts, answer.id),
                        }
                        for answer in shown
                    ],
                    "wrong": len(wrong),
                    "unseen": sum(not answer.review for answer in wrong),
                    "true_labels": sorted({str(answer.label) for answer in shown}),
                    "given_labels": sorted({answer.predicted for answer in shown}),
                    "with_texts": run.texts is not None,
                },
            )
        ],
    )


def confused_pairs(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[Confusion]:
    """Return every pair with a mistake between them, the most mistakes first.

    ``confusion[i][j]`` counts messages of true label i that were answered with label j.
    """
    found: list[Confusion] = []
    sizes = [sum(row) for row in confusion]
    for i in range(len(labels)):
        mixed = (j for j in range(i + 1, len(labels)) if confusion[i][j] + confusion[j][i])
        found.extend(_judge(labels, confusion, sizes, i, j) for j in mixed)
    return sorted(found, key=lambda pair: (-pair.total, pair.p, pair.label, pair.other))


def _judge(
    labels: Sequence[str], confusion: Sequence[Sequence[int]], sizes: Sequence[int], i: int, j: int
) -> Confusion:
    expected = sizes[i] / (sizes[i] + sizes[j])
    total = confusion[i][j] + confusion[j][i]
    if confusion[i][j] < expected * total:
        i, j, expected = j, i, 1 - expected
    forth, back = confusion[i][j], confusion[j][i]
    p = binomial_test(forth, total, expected)
    if p < ALPHA:
        kind = ONE_WAY
    elif total >= FEWEST and min(forth, back) >= BALANCED * total:
        kind = TWO_WAY
    else:
        kind = UNCLEAR
    return Confusion(labels[i], labels[j], forth, back, p, kind)
