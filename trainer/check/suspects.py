"""Find rows whose label is probably wrong, by models that were not trained on them, and sublabels
that look misplaced.

The model is linear, on TF-IDF and sentence embeddings: cheap, and good enough to judge labels.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.check.findings import SUBLABELS, SUSPECTS, Finding, Verdict, grade
from trainer.dataset.folder import Example
from trainer.progress import track
from trainer.statistics.label_errors import wrong_share
from worker.contract.text import normalize

Matrix = NDArray[np.float32]
Learner = Callable[..., NDArray[np.float64]]
"""Learns and predicts as ``fit_predict`` does."""
Sublabel = tuple[str, str | None]
"""A label, and its sublabel or None."""

FOLDS = 5
LEAST_EXAMPLES = 50
"""Below this number of examples the models know too little to doubt a label."""

_LEAST_SUBLABEL = 5
_MOST_SUBLABELS = 500
_TOKEN = re.compile(r"\w+|[^\w\s]")
_DIMENSIONS = 512
_SEED = 1
# Regularization and steps, for all features together and for sublabels.
_C_TOGETHER = 3.0
_C_SUBLABELS = 10.0
_MAX_STEPS = 60


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """The models' predictions. ``probabilities`` (examples, labels) are over ``labels``, those that
    occur; ``own`` (examples,) are the indexes of the given labels. ``features`` are unit vectors.

    ``judged`` (examples,) is False, and the given label has probability 1, if all examples of a
    label are near-duplicates, so that a model without them could not know the label. ``finer``
    (examples, classes) are the probabilities of sublabels, if the models predict these; ``classes``
    lists them, with None for the rare sublabels of a label together.
    """

    labels: tuple[str, ...]
    own: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    features: Matrix
    judged: NDArray[np.bool_]
    detector: str
    classes: tuple[Sublabel, ...] = ()
    finer: NDArray[np.float64] | None = None

    @property
    def agreement(self) -> float:
        """Share of the examples whose most probable label is the given one."""
        return float((self.probabilities.argmax(axis=1) == self.own).mean())


def predict_out_of_fold(
    examples: Sequence[Example],
    names: Sequence[str],
    *,
    clusters: NDArray[np.int64],
    embeddings: Path | None,
    seed: int,
) -> OutOfFold:
    """Predict each example with a model that was not trained on it, from TF-IDF and, with
    ``embeddings`` (a directory), sentence embeddings.

    ``clusters`` (examples,) numbers the groups of near-duplicates, which stay in one fold: a
    near-duplicate's label is likely to be wrong in the same way.
    """
    messages = [example.message for example in examples]
    parts = [text_features(messages)]
    if embeddings is not None:
        parts.append(embedding_features(messages, embeddings))
    what = "TF-IDF and sentence embeddings" if embeddings else "TF-IDF"
    views = [np.concatenate(parts, axis=1)]
    what = f"{what}, logistic regression"
    return predict_by_views(
        examples, names, views, what, clusters=clusters, seed=seed, learn=fit_predict
    )


def predict_by_views(
    examples: Sequence[Example],
    names: Sequence[str],
    views: Sequence[Matrix],
    what: str,
    *,
    clusters: NDArray[np.int64],
    seed: int,
    learn: Learner,
) -> OutOfFold:
    """Return the same by ``learn`` from any features: the mean over ``views``, (examples, features)
    each, of a model's predictions. ``what`` names them."""
    # With sublabels the model predicts these, and adds their probabilities up for each label:
    # small, tight groups are easier to separate.
    present = {example.label for example in examples}
    labels = tuple(name for name in names if name in present)
    index = {name: at for at, name in enumerate(labels)}
    own = np.array([index[example.label] for example in examples], dtype=np.int64)
    groups, classes = group_sublabels(examples, index)
    folds = assign_folds(own if groups is None else groups, clusters, seed)
    judged = ~_hidden_whole(own, folds)
    finer = None

    def predict(targets: NDArray[np.int64], outputs: int, *, fine: bool) -> NDArray[np.float64]:
        found = [
            cross_val_predict(view, targets, folds, outputs, fine=fine, learn=learn)
            for view in views
        ]
        return np.asarray(np.mean(found, axis=0))

    if groups is None:
        found = predict(own, len(labels), fine=False)
    else:
        finer = predict(groups, len(classes), fine=True)
        label_of = np.array([index[label] for label, _ in classes], dtype=np.int64)
        found = sum_per_label(finer, label_of, len(labels))
        finer = _rows_to_one(finer)
        finer[~judged] = np.eye(len(classes))[groups[~judged]]
    found = _rows_to_one(found)
    found[~judged] = np.eye(len(labels))[own[~judged]]
    over = "labels" if groups is None else f"{len(classes)} sublabels"
    detector = f"{what} over {over}, {FOLDS} folds"
    features = unit_rows(views[0])
    return OutOfFold(labels, own, found, features, judged, detector, classes=classes, finer=finer)


def group_sublabels(
    examples: Sequence[Example], index: Mapping[str, int]
) -> tuple[NDArray[np.int64] | None, tuple[Sublabel, ...]]:
    """Number the sublabels within their labels: (group of each example, sublabel of each group).

    Sublabels with fewer than five examples under a label are one group. The first is None if most
    examples have no sublabel, or there are too many sublabels or no more than labels.
    """
    with_sublabel = sum(example.sublabel is not None for example in examples)
    counts = Counter((example.label, example.sublabel) for example in examples)
    keys = []
    for example in examples:
        is_rare = counts[example.label, example.sublabel] < _LEAST_SUBLABEL
        keys.append((example.label, None if is_rare else example.sublabel))
    found = sorted(set(keys), key=lambda key: (index[key[0]], key[1] or ""))
    if with_sublabel < len(examples) / 2 or not len(index) < len(found) <= _MOST_SUBLABELS:
        return None, ()
    place = {key: at for at, key in enumerate(found)}
    return np.array([place[key] for key in keys], dtype=np.int64), tuple(found)


def text_features(messages: Sequence[str]) -> Matrix:
    """Return one unit vector a message, (messages, at most 512).

    TF-IDF of words (1-2 grams) and of characters within words (2-5 grams), as in the baseline,
    projected to its largest singular vectors (Deerwester et al. 1990). Uses no labels.
    """
    # The projection makes learning five times as fast, at the cost of a little accuracy.
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    union = make_union(
        TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, tokenizer=_TOKEN.findall, token_pattern=None
        ),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    sparse = union.fit_transform([normalize(message) for message in messages]).astype(np.float32)
    size = min(_DIMENSIONS, *(length - 1 for length in sparse.shape))
    if size < 1:
        return np.ones((len(messages), 1), dtype=np.float32)
    with np.errstate(invalid="ignore"):  # its explained variance is 0/0 if all rows are equal
        found = TruncatedSVD(size, n_iter=2, random_state=_SEED).fit_transform(sparse)
    return unit_rows(np.asarray(found, dtype=np.float32))


def embedding_features(messages: Sequence[str], directory: Path) -> Matrix:
    """Return sentence embeddings, unit length, from a local model. Raises BadInput."""
    from trainer.model.embeddings import embed

    return embed(messages, directory)


def unit_rows(rows: Matrix) -> Matrix:
    """Scale every row to length 1, except rows of zeros."""
    length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return np.asarray(rows / length, dtype=np.float32)


def fit_predict(
    known: Matrix, targets: NDArray[np.int64], asked: Matrix, classes: int, *, fine: bool = False
) -> NDArray[np.float64]:
    """Learn ``targets`` (0..classes-1) and return probabilities for ``asked``, (asked, classes).

    A class without an example gets probability 0. ``fine`` is for many small classes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    found = np.zeros((len(asked), classes))
    present = np.unique(targets)
    if len(present) == 1:
        found[:, present[0]] = 1.0
        return found
    model = LogisticRegression(
        C=_C_SUBLABELS if fine else _C_TOGETHER, max_iter=_MAX_STEPS, tol=1e-3
    )
    with warnings.catch_warnings():
        # Stopping before the optimum regularizes, and saves half the time.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(known, targets)
    found[:, present] = model.predict_proba(asked)
    return found


def cross_val_predict(
    features: Matrix,
    targets: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: int,
    *,
    fine: bool = False,
    learn: Learner = fit_predict,
) -> NDArray[np.float64]:
    """Return each row's probabilities from a model that was not trained on its fold. Rows with a
    negative fold are always trained on and get zeros."""
    found = np.zeros((len(targets), classes))
    for fold in track("learning", np.unique(folds[folds >= 0]).tolist()):
        rest, asked = folds != fold, folds == fold
        found[asked] = learn(features[rest], targets[rest], features[asked], classes, fine=fine)
    return found


def assign_folds(
    targets: NDArray[np.int64], clusters: NDArray[np.int64], seed: int, folds: int = FOLDS
) -> NDArray[np.int64]:
    """Assign whole clusters to folds, (rows,), stratified by class (scikit-learn's
    ``StratifiedGroupKFold``). Deterministic for a seed. There are no more folds than clusters."""
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros(len(targets), dtype=np.int64)
    splits = min(folds, len(np.unique(clusters)))
    if splits < 2:
        return found
    if np.bincount(targets).max() < splits:
        targets = np.zeros_like(targets)  # all classes are too small to stratify by
    splitter = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer rows than folds is missing in some, which cannot be avoided.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (_, asked) in enumerate(splitter.split(targets, targets, clusters)):
            found[asked] = fold
    return found


def _hidden_whole(own: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each row whether all rows of its label are in one fold, (rows,)."""
    alone = [label for label in np.unique(own) if len(np.unique(folds[own == label])) == 1]
    return np.isin(own, alone)


def sum_per_label(
    fine: NDArray[np.float64], label_of: NDArray[np.int64], labels: int
) -> NDArray[np.float64]:
    """Add up sublabels' probabilities, (rows, sublabels), to those of their labels."""
    found = np.zeros((len(fine), labels))
    for label in range(labels):
        found[:, label] = fine[:, label_of == label].sum(axis=1)
    return found


def _rows_to_one(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalize rows; rows of zeros (no class could be learnt) become uniform."""
    # Above 0, because wrong_share takes logarithms of them.
    found = np.maximum(found, 1e-9)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


SIMILAR = 3
_WARN = 0.01
_LISTED = 100

# Where the models agree with fewer labels, most of what they doubt is their own mistake, unless the
# likelihood shows slips: of 214 messages of a bank, all right, they agree with 80 % and doubt 15;
# of 4,000 with 94 % and 48; with 5 % under a similar label with 90 % and 257, 174 of them wrong.
_TELLING = 0.9

CERTAIN = 0.9
"""Doubt above which a label is always suspected, beyond the estimated number of errors."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """An example with a suspected label. ``confidence`` is the models' probability that the label
    is wrong; ``similar`` are the nearest messages whose labels are not suspected."""

    example: Example
    suggested: str
    confidence: float
    reason: str
    similar: tuple[Example, ...]


def doubtful(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows (rows,) belong in a review queue: those that cleanlab flags, and those
    whose label gets a probability below 0.1.

    ``probabilities`` (rows, classes) must come from models that were not trained on the row; every
    class needs a row. cleanlab estimates the number to flag for each pair of classes, with
    thresholds that allow for over-confident models (Northcutt, Jiang and Chuang 2021, arXiv
    1911.00068).
    """
    from cleanlab.filter import find_label_issues  # takes seconds

    flagged = find_label_issues(
        labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1, verbose=False
    )
    # The second rule is there because cleanlab's estimated number of errors is too low if errors
    # are few. With 1 in 50 planted, recall was 91 % without and 97 % with it (precision 73, 65 %).
    doubt = 1 - probabilities[np.arange(len(labels)), labels]
    certain = (probabilities.argmax(axis=1) != labels) & (doubt > CERTAIN)
    return np.asarray(flagged | certain, dtype=np.bool_)


def find_suspects(
    examples: Sequence[Example], out_of_fold: OutOfFold, decided: Collection[str]
) -> tuple[Suspect, ...]:
    """Return the examples with suspected labels, the most certain first. ``decided`` are ids with a
    reviewer's decision, which are not suspected again."""
    own, probabilities = out_of_fold.own, out_of_fold.probabilities
    doubted = doubtful(own, probabilities)
    trusted = ~doubted
    doubted &= np.array([example.id not in decided for example in examples])
    # One minus the own label's probability ranked planted errors better than the normalized margin.
    confidence = 1 - probabilities[np.arange(len(own)), own]
    others = probabilities.copy()
    others[np.arange(len(own)), own] = -1
    suggested = others.argmax(axis=1)
    places = np.flatnonzero(doubted)
    order = places[np.argsort(-confidence[places], kind="stable")]
    near = nearest_trusted(out_of_fold.features, order, trusted)
    return tuple(
        _suspect(
            examples[at],
            out_of_fold.labels[suggested[at]],
            float(confidence[at]),
            float(probabilities[at, suggested[at]]),
            tuple(examples[other] for other in row),
        )
        for at, row in zip(order.tolist(), near, strict=True)
    )


def nearest_trusted(
    features: NDArray[np.float32], asked: NDArray[np.int64], trusted: NDArray[np.bool_]
) -> list[list[int]]:
    """Return the three nearest trusted rows of each asked row, by cosine, the nearest first."""
    pool = np.flatnonzero(trusted)
    found = []
    for start in range(0, len(asked), 256):
        chunk = asked[start : start + 256]
        # In chunks: all cosines of a large dataset would not fit into memory.
        cosine = features[chunk] @ features[pool].T
        # Below every cosine, so that a message is not among its own neighbours.
        cosine[pool[None, :] == chunk[:, None]] = -2
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :SIMILAR]
        found += pool[best].tolist()
    return found


def _suspect(
    example: Example, suggested: str, confidence: float, share: float, similar: tuple[Example, ...]
) -> Suspect:
    reason = (
        f"models that saw neither it nor a near-copy give {suggested} {share:.0%} and "
        f"{example.label} {1 - confidence:.0%}"
    )
    labels = [example.label for example in similar]
    if labels:
        agree = labels.count(suggested)
        reason += f"; {agree} of the {len(labels)} most similar messages are under {suggested}"
    return Suspect(example, suggested, confidence, reason, similar)


def check_suspects(
    suspects: Sequence[Suspect],
    out_of_fold: OutOfFold,
    *,
    decided: NDArray[np.bool_],
    most: float,
) -> Finding:
    """Warn if more than 1 % of labels are suspected, which careful annotators leave wrong; fail
    above ``most``. Where the models cannot tell wrong labels from hard ones (see ``_TELLING``),
    this is said instead, and is not a warning.

    ``decided`` (examples,) are those with a reviewer's decision, whose labels count as right in the
    estimated share of wrong ones.
    """
    # The queue says which labels are doubted, not how many are wrong: where the models are weak it
    # holds far more.
    expected = wrong_share(out_of_fold.own, out_of_fold.probabilities, confirmed=decided)
    examples = len(out_of_fold.own)
    share = len(suspects) / examples
    moves = Counter((suspect.example.label, suspect.suggested) for suspect in suspects)
    per_label = Counter(suspect.example.label for suspect in suspects)
    sizes: Mapping[int, int] = Counter(out_of_fold.own.tolist())
    figures = {
        "suspects": len(suspects),
        "share": round(share, 4),
        "expected_wrong": {
            "slips": round(expected.value, 4),
            "slips_interval_95": [round(expected.low, 4), round(expected.high, 4)],
            "at_most": round(expected.most, 4),
        },
        "decided": int(decided.sum()),
        "not_judged": int((~out_of_fold.judged).sum()),
        "detector": out_of_fold.detector,
        "agreement": round(out_of_fold.agreement, 4),
        "per_label": {
            name: {"suspects": per_label[name], "share": round(per_label[name] / sizes[at], 4)}
            for at, name in enumerate(out_of_fold.labels)
        },
        "moves": [[label, suggested, count] for (label, suggested), count in moves.most_common(20)],
        "surest": [_describe(suspect) for suspect in suspects[:_LISTED]],
    }
    verdict = grade(share, warn=_WARN, fail=most)
    found = f"{len(suspects):,} of {examples:,} labels ({share:.1%}) are suspected to be wrong"
    advice = ""
    if verdict != "ok" and expected.low < _WARN and out_of_fold.agreement < _TELLING:
        verdict = "ok"
        found = (
            f"no label is shown to be wrong. Models that learn from {examples:,} messages agree "
            f"with {out_of_fold.agreement:.0%} of their labels, too few to tell a wrong label from "
            f"a hard message; the {len(suspects):,} that they doubt most may all be right"
        )
        advice = (
            "Look at the first ten of the review queue; if they are right, leave the rest, and "
            "label more messages."
        )
    elif suspects:
        advice = (
            "Work through the review queue from the top, where the most certain ones are: accept, "
            "relabel or drop. Then prepare again with --decisions."
        )
    return Finding(SUSPECTS, verdict, found, advice, figures)


def _describe(suspect: Suspect) -> dict[str, object]:
    return {
        "id": suspect.example.id,
        "label": suspect.example.label,
        "suggested_label": suspect.suggested,
        "confidence": round(suspect.confidence, 4),
        "similar": [example.id for example in suspect.similar],
    }


_OWN, _OTHER = 0.25, 0.5
_LEAST = 10


def check_sublabels(examples: Sequence[Example], out_of_fold: OutOfFold) -> Finding:
    """Hide whole sublabels from a model of the labels, and report those that it puts under another
    label (probability above one half, own label below a quarter), and those under several labels.

    That is a question for the taxonomy's owner, not for an annotator. Labels with one sublabel
    cannot be checked this way.
    """
    under: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        if example.sublabel is not None:
            under[example.sublabel].add(example.label)
    if not under:
        return Finding(SUBLABELS, "skipped", "the examples have no sublabels")
    several = sorted(name for name, labels in under.items() if len(labels) > 1)
    folds = assign_sublabel_folds(examples)
    misplaced: list[dict[str, Any]] = []
    words = [f"{len(under)} sublabels, one a label"]
    if len(np.unique(folds)) > 1:
        unseen = cross_val_predict(
            out_of_fold.features, out_of_fold.own, folds, len(out_of_fold.labels)
        )
        misplaced = _misplaced(examples, out_of_fold.labels, folds, unseen)
        words = [f"{len(under)} sublabels, {len(misplaced)} look misplaced"]
    if several:
        words.append(f"{len(several)} occur under several labels")
    advice = []
    if misplaced:
        pairs = "; ".join(
            f"{found['sublabel']} ({found['label']}) reads like {found['reads_like']}"
            for found in misplaced[:4]
        )
        advice.append(f"Ask the owner of the taxonomy: {pairs}.")
    if several:
        advice.append(f"Put each sublabel under one label: {', '.join(several[:4])}.")
    verdict: Verdict = "warn" if advice else "ok"
    figures = {"misplaced": misplaced}
    return Finding(SUBLABELS, verdict, ", ".join(words), " ".join(advice), figures)


def assign_sublabel_folds(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Assign whole sublabels to folds so that no label is hidden entirely. Rows of labels with one
    sublabel get fold -1: they are never hidden."""
    groups: dict[str, list[str | None]] = defaultdict(list)
    for example in examples:
        if example.sublabel not in groups[example.label]:
            groups[example.label].append(example.sublabel)
    fold: dict[tuple[str, str | None], int] = {}
    offset = 0
    for label, names in sorted(groups.items()):
        for place, name in enumerate(sorted(names, key=lambda sublabel: sublabel or "")):
            fold[label, name] = (offset + place) % FOLDS if len(names) > 1 else -1
        # Each label starts at another fold, or the first fold would get a sublabel of every label.
        offset += len(names)
    return np.array([fold[example.label, example.sublabel] for example in examples], dtype=np.int64)


def _misplaced(
    examples: Sequence[Example],
    labels: Sequence[str],
    folds: NDArray[np.int64],
    unseen: NDArray[np.float64],
) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, example in enumerate(examples):
        if example.sublabel is not None and folds[at] >= 0:
            rows[example.label, example.sublabel].append(at)
    misplaced: list[dict[str, Any]] = []
    for (label, name), places in rows.items():
        mean = unseen[places].mean(axis=0)
        own, best = labels.index(label), int(mean.argmax())
        if len(places) >= _LEAST and best != own and mean[best] > _OTHER and mean[own] < _OWN:
            misplaced.append(
                {
                    "sublabel": name,
                    "label": label,
                    "examples": len(places),
                    "own": round(float(mean[own]), 3),
                    "reads_like": labels[best],
                    "other": round(float(mean[best]), 3),
                }
            )
    return sorted(misplaced, key=lambda found: (found["own"], found["sublabel"]))
