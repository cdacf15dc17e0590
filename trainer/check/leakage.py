"""Does the hold-out hold messages that were trained on? Told without opening it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trainer.check.finding import Finding, grade
from trainer.check.likeness import Fingerprint, fingerprint, near_pairs
from trainer.dataset.examples import Example
from trainer.dataset.folder import Dataset

_NEAR_WARN, _NEAR_FAIL = 0.0, 0.01
_LISTED = 20


def holdout_fingerprints(dataset: Dataset) -> tuple[Fingerprint, ...]:
    """Return the hold-out's messages as fingerprints, in the file's order.

    This is no opening of the hold-out: neither texts nor labels nor ids leave this function, and
    nothing can be tuned to what does.
    """
    lines = (dataset.directory / "holdout.jsonl").read_text(encoding="utf-8").split("\n")
    messages = (json.loads(line)["instruction"] for line in lines if line)
    return tuple(fingerprint(Example("", message, "").key) for message in messages)


def check_leakage(
    parts: Sequence[tuple[str, Sequence[Example], Sequence[Fingerprint]]],
    holdout: Sequence[Fingerprint],
    similarity: float,
) -> Finding:
    """Compare every split with every other. ``parts`` are the opened ones: name, examples and
    their fingerprints. A copy of a hold-out message fails; of a near-copy one in a hundred may be
    there with a warning; between training and validation both only warn."""
    figures: dict[str, object] = {"similarity": similarity}
    exact_total, near_total = 0, 0
    for name, examples, prints in parts:
        exact, near = _overlap(prints, holdout, similarity)
        exact_total += len(exact)
        near_total += len(near)
        figures[f"{name}_holdout"] = {
            "exact": len(exact),
            "near": len(near),
            "ids": [examples[at].id for at in (*exact, *near)][:_LISTED],
        }
    (_, examples, prints), (_, _, others) = parts[0], parts[1]
    exact, near = _overlap(prints, others, similarity)
    figures["train_validation"] = {
        "exact": len(exact),
        "near": len(near),
        "ids": [examples[at].id for at in (*exact, *near)][:_LISTED],
    }
    share = near_total / max(1, len(holdout))
    verdict = "fail" if exact_total else grade(share, warn=_NEAR_WARN, fail=_NEAR_FAIL)
    if verdict == "ok" and (exact or near):
        verdict = "warn"
    found = (
        f"{exact_total:,} copies and {near_total:,} near-copies of hold-out messages among the "
        f"others; {len(exact) + len(near):,} between training and validation"
    )
    advice = ""
    if verdict != "ok":
        advice = (
            "Prepare the dataset again: it keeps copies and near-copies on one side. Until then "
            "the hold-out measures memory."
        )
    return Finding("leakage between splits", verdict, found, advice, figures)


def _overlap(
    prints: Sequence[Fingerprint], others: Sequence[Fingerprint], similarity: float
) -> tuple[list[int], list[int]]:
    """Return the places in ``prints`` that have a copy, and those that have a near-copy."""
    keys = {one.key for one in others}
    exact = [at for at, one in enumerate(prints) if one.key in keys]
    copies = set(exact)
    pairs = near_pairs(
        [one.pieces for one in prints],
        [one.pieces for one in others],
        similarity,
        skip=lambda one, _: one in copies,
        most=1,
    )
    return exact, [one for one, _, _ in pairs]
