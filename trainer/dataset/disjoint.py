"""Proof that a hold-out is unseen: no message of it, and none nearly the same, was learnt from."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.artifacts.evaluation import DisjointProof
from trainer.dataset.folder import Dataset, Example
from trainer.dataset.near_duplicates import near_pairs, shingles
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY
from worker.contract.redact import redact_personal_data


def verify_disjoint(
    trained_on: Dataset, evaluated_on: Dataset, holdout: Sequence[Example]
) -> DisjointProof:
    """Compare ``holdout``, of ``evaluated_on``, with all that an adapter has seen of its own
    dataset: the training messages, and validation, by which its epoch, temperature and thresholds
    were chosen.

    Near is what ``prepare`` calls so by default (``SIMILARITY``). Where one of the datasets was
    redacted, both are compared as redacted. Raises BadInput where names were redacted in one of
    them alone: those of the other cannot be hidden here, and a copy would look new. The proof
    holds digests and counts, no text; it is the reader's to judge.
    """
    if bool(trained_on.record.get("names_redaction")) != bool(
        evaluated_on.record.get("names_redaction")
    ):
        raise BadInput(
            f"{evaluated_on.directory} and {trained_on.directory}: names were redacted in one of "
            "the two datasets alone, so that copies cannot be told: prepare both alike"
        )
    redacted = bool(trained_on.redaction or evaluated_on.redaction)
    seen = _keys((*trained_on.train, *trained_on.validation), redacted=redacted)
    held = _keys(holdout, redacted=redacted)
    known = set(seen)
    fresh = [key for key in held if key not in known]
    pairs = near_pairs(
        [shingles(key) for key in fresh], [shingles(key) for key in seen], SIMILARITY, most=1
    )
    return DisjointProof(
        trained_on=trained_on.digest,
        evaluated_on=evaluated_on.digest,
        holdout_sha256=evaluated_on.holdout_sha256,
        similarity=SIMILARITY,
        seen_messages=len(seen),
        holdout_messages=len(held),
        copies=len(held) - len(fresh),
        near_copies=sum(1 for _ in pairs),
    )


def _keys(examples: Sequence[Example], *, redacted: bool) -> list[str]:
    if not redacted:
        return [example.key for example in examples]
    texts = (redact_personal_data(example.message)[0] for example in examples)
    return [Example("", text, "").key for text in texts]
