"""Proof that a hold-out is unseen: no message of it, and none nearly the same, was learnt from."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.artifacts.evaluation import DisjointProof
from trainer.dataset.clean import canonical, cleaning_of
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

    A copy has the same text or the same canonical text. Near-copies are those of ``prepare`` by
    default (``SIMILARITY``); where one of the datasets was redacted, both are compared as redacted.
    A message that is neither may be an edited one that kept its id, so ids are compared too. Raises
    BadInput as ``refuse_unlike``. The proof holds digests and counts, no text; the reader judges.
    """
    refuse_unlike(trained_on, evaluated_on)
    redacted = bool(trained_on.redaction or evaluated_on.redaction)
    known = (*trained_on.train, *trained_on.validation)
    seen = _keys(known, redacted=redacted)
    held = _keys(holdout, redacted=redacted)
    texts, forms = set(seen), {canonical(example.message) for example in known}
    fresh = [
        at
        for at, example in enumerate(holdout)
        if held[at] not in texts and canonical(example.message) not in forms
    ]
    pairs = near_pairs(
        [shingles(held[at]) for at in fresh], [shingles(key) for key in seen], SIMILARITY, most=1
    )
    near = {fresh[place] for place, _, _ in pairs}
    ids = {example.id for example in known}
    return DisjointProof(
        trained_on=trained_on.digest,
        evaluated_on=evaluated_on.digest,
        holdout_sha256=evaluated_on.holdout_sha256,
        similarity=SIMILARITY,
        seen_messages=len(seen),
        holdout_messages=len(held),
        copies=len(held) - len(fresh),
        near_copies=len(near),
        same_ids=sum(holdout[at].id in ids for at in fresh if at not in near),
    )


def refuse_unlike(trained_on: Dataset, evaluated_on: Dataset) -> None:
    """Raise BadInput where the two datasets were cleaned differently: a copy would look new.

    Unequal redaction of mail addresses and numbers is allowed: its rules can be applied afterwards.
    Names need a model, and what was stripped from one dataset is lost there.
    """
    one, other = cleaning_of(trained_on), cleaning_of(evaluated_on)
    differ = [name for name in one if one[name] != other[name]]
    if differ:
        raise BadInput(
            f"{evaluated_on.directory} and {trained_on.directory}: were cleaned differently "
            f"({', '.join(differ)}), so copies cannot be recognized: prepare both with the same "
            "--strip-quotes, --strip-signatures and --redact-names"
        )


def _keys(examples: Sequence[Example], *, redacted: bool) -> list[str]:
    if not redacted:
        return [example.key for example in examples]
    texts = (redact_personal_data(example.message)[0] for example in examples)
    return [Example("", text, "").key for text in texts]
