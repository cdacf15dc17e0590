"""What the adapter has to beat: TF-IDF and logistic regression. The only file that imports
``sklearn``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline, make_union

from trainer.dataset.examples import Example
from worker.contract.text import normalize

_C_GRID = (1.0, 3.0, 10.0, 30.0, 100.0)
_FOLDS = 5


def predict_baseline(
    train: Sequence[Example],
    validation: Sequence[Example],
    holdout: Sequence[Example],
    labels: Sequence[str],
    *,
    seed: int,
) -> NDArray[np.int64]:
    """Return the hold-out's predicted label indexes.

    Words (1-2 grams) and characters within words (2-5 grams), C tuned by cross-validated
    macro-F1 on ``train`` alone, then fitted on train and validation together.
    """
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    model = make_pipeline(features, LogisticRegression(max_iter=2000))
    rarest = min(Counter(one.label for one in train).values())
    c = _C_GRID[len(_C_GRID) // 2]
    if rarest >= 2:
        folds = StratifiedKFold(min(_FOLDS, rarest), shuffle=True, random_state=seed)
        matrix = features.fit_transform(_texts(train))
        search = GridSearchCV(
            LogisticRegression(max_iter=2000), {"C": list(_C_GRID)}, scoring="f1_macro", cv=folds
        )
        search.fit(matrix, [one.label for one in train])
        c = float(search.best_params_["C"])
    model.set_params(logisticregression__C=c)
    known = [*train, *validation]
    model.fit(_texts(known), [one.label for one in known])
    index = {label: at for at, label in enumerate(labels)}
    found = model.predict(_texts(holdout))
    return np.array([index[one] for one in found], dtype=np.int64)


def _texts(examples: Sequence[Example]) -> list[str]:
    return [normalize(one.message) for one in examples]
