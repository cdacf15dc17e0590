"""The gate's rule about the hold-out: it is one that the adapter has not learnt from."""

from __future__ import annotations

from trainer.artifacts.evaluation import DisjointProof, EvaluationRecord
from trainer.similarity import SIMILARITY
from trainer.store.verdict import Criterion, criterion
from worker.contract import Manifest


def judge_unseen(manifest: Manifest, evaluation: EvaluationRecord) -> Criterion:
    """Return the row of whether the adapter was measured on messages that it has not seen.

    It passes on its own dataset, whose splits ``prepare`` keeps apart, by the dataset's digest;
    and on another one whose hold-out was proven to share no message, near-duplicate or id with
    what the adapter was trained and chosen on (``evaluate --trained-on``).
    """
    found, passed = _judge(manifest, evaluation)
    wanted = "the adapter's own dataset, or proven disjoint"
    return criterion("hold-out unseen", wanted, found, passed)


def _judge(manifest: Manifest, evaluation: EvaluationRecord) -> tuple[str, bool]:
    own, other = manifest.data.get("digest"), evaluation.dataset.digest
    if not own:
        return "the manifest does not say which dataset the adapter was trained on", False
    if own == other:
        return f"its own dataset, {other[:12]}…", True
    which = f"another dataset ({other[:12]}…, trained on {str(own)[:12]}…)"
    proof = evaluation.disjoint
    if proof is None:
        mend = (
            "evaluate on its own dataset, or again with --trained-on and the folder of the one "
            "that it was trained on"
        )
        return f"{which}, and no proof that its hold-out was not learnt from: {mend}", False
    if problem := _problem(proof, str(own), evaluation):
        return f"{which}; the proof is of {problem}: evaluate again with --trained-on", False
    if proof.shared:
        text = (
            f"{which}: {proof.shared} of its {proof.holdout_messages} held-out messages are among "
            f"those trained on ({proof.describe()}): evaluate on the adapter's own dataset"
        )
        return text, False
    text = (
        f"{which}, none of its {proof.holdout_messages} held-out messages near to one of "
        f"{proof.seen_messages} seen (Jaccard {proof.similarity:g})"
    )
    return text, True


def _problem(proof: DisjointProof, own: str, evaluation: EvaluationRecord) -> str | None:
    """Return what the proof is of, where it is not of this adapter and this evaluation."""
    dataset = evaluation.dataset
    if proof.trained_on != own:
        return "another training dataset"
    if (proof.evaluated_on, proof.holdout_sha256) != (dataset.digest, dataset.holdout_sha256):
        return "another hold-out"
    if proof.holdout_messages != evaluation.examples:
        return f"{proof.holdout_messages} messages where {evaluation.examples} were evaluated"
    if proof.similarity > SIMILARITY:
        return f"copies nearer than {proof.similarity:g} only, where {SIMILARITY:g} is wanted"
    return None
