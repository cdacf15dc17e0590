"""Figures of merit of a labelling, from true and predicted label indexes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from trainer.statistics.calibration import Floats, Ints
from trainer.statistics.figures import Figures, LabelFigures


def measure(truth: Ints, predicted: Ints, labels: Sequence[str]) -> Figures:
    """Compute every figure of at least one message. Macro-F1 is the mean over the labels that
    occur in ``truth``."""
    known = range(len(labels))
    confusion = confusion_matrix(truth, predicted, labels=known)
    columns = precision_recall_fscore_support(truth, predicted, labels=known, zero_division=0.0)
    per_label = tuple(
        LabelFigures(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    )
    _, _, f1, support = columns
    return Figures(
        examples=len(truth),
        accuracy=float(accuracy_score(truth, predicted)),
        interval=wilson(int(np.trace(confusion)), len(truth)),
        macro_f1=float(f1[support > 0].mean()),
        per_label=per_label,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927); 0 to 1 of nothing."""
    if not total:
        return 0.0, 1.0
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def auroc(low: Floats, high: Floats) -> float:
    """Return the chance that a value of ``high`` exceeds one of ``low``, ties counting half: the
    area under the ROC curve (Hanley & McNeil 1982)."""
    truth = np.concatenate([np.zeros(len(low)), np.ones(len(high))])
    return float(roc_auc_score(truth, np.concatenate([low, high])))
