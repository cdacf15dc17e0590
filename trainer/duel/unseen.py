"""A duel is fought on messages that the adapter has not learnt, as the gate wants it of figures."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.artifacts.evaluation import DisjointProof
from trainer.dataset.folder import Dataset, Example
from trainer.dataset.near_duplicates import verify_disjoint
from trainer.errors import BadInput
from worker.contract import Manifest


def refuse_unproven(manifest: Manifest, dataset: Dataset, trained_on: Dataset | None) -> None:
    """Raise BadInput where nothing shows that the hold-out is unseen: an adapter that has learnt
    it by heart beats every baseline."""
    own = manifest.data.get("digest")
    if own == dataset.digest or trained_on is not None:
        return
    if not own:
        raise BadInput(
            f"the adapter's manifest does not say which dataset it was trained on, so that nothing "
            f"shows that it has not learnt from the hold-out of {dataset.directory}: train it with "
            "clerk-trainer train"
        )
    raise BadInput(
        f"{dataset.directory}: is dataset {dataset.digest[:12]}…, and the adapter was trained on "
        f"{str(own)[:12]}…: duel on that one, or give its folder with --trained-on, so that "
        "hold-out and training are compared"
    )


def verify_unseen(
    trained_on: Dataset, dataset: Dataset, holdout: Sequence[Example]
) -> DisjointProof:
    """Return the proof. Raises BadInput where the hold-out shares messages with the training."""
    proof = verify_disjoint(trained_on, dataset, holdout)
    if proof.shared:
        raise BadInput(
            f"{dataset.directory}: {proof.shared} of its {proof.holdout_messages} held-out "
            f"messages are among those the adapter was trained on ({proof.describe()}): a duel on "
            "them proves nothing; duel on the adapter's own dataset"
        )
    return proof
