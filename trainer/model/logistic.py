"""Multinomial logistic regression whose penalty is chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

C_GRID = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Inverse strengths of the L2 penalty that are tried."""

EMBEDDING_LENGTH = 2.0
"""The length that a sentence embedding is given, where it is the only feature: penalties of
``C_GRID`` are then about right for it."""

_MAX_ITERATIONS = 1000
_PATIENCE = 2


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted model, its penalty, and what share of validation it gets right."""

    accuracy: float
    c: float
    model: Any


def fit_grid(
    x: Any,
    classes: Sequence[Any],
    measure: Callable[[Any], float],
    *,
    grid: Sequence[float] = C_GRID,
) -> Iterator[Fit]:
    """Fit features ``x``, (messages, features), to their classes with each C of ``grid`` in rising
    order; ``measure`` gives a fitted model's accuracy on validation. Two in a row that are no
    better end the search."""
    from sklearn.linear_model import LogisticRegression  # takes a second

    highest, worse = -1.0, 0
    for c in sorted(grid):
        # Each from nothing: started from the last solution, a fit takes that for converged.
        model = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS).fit(x, classes)
        accuracy = measure(model)
        yield Fit(accuracy, c, model)
        worse = 0 if accuracy > highest else worse + 1
        highest = max(highest, accuracy)
        if worse == _PATIENCE:
            return


def linear_layer(model: Any, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights, (classes, features), and biases, (classes), whose softmax is the fitted
    model's, classes being numbered; one that does not occur has no chance."""
    weights = np.zeros((classes, model.coef_.shape[1]))
    biases = np.full(classes, -1e4)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps the second one's alone
        coefficients = np.vstack([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weights[model.classes_] = coefficients
    biases[model.classes_] = intercepts
    return weights, biases
