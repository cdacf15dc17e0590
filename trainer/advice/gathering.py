"""Advice from files: a dataset's folder, decisions, and the texts that they are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.advice.run import Embed, advise
from trainer.dataset.folder import open_dataset, open_holdout
from trainer.propose.messages import read_new_messages
from worker.contract.exchange import Advice, read_answers
from worker.contract.text import message_sha256


def advise_dataset(
    dataset: Path,
    decisions: Sequence[Path],
    messages: Sequence[Path],
    *,
    guideline: str | None,
    embeddings: Path | None,
    with_texts: bool,
) -> Advice:
    """Read everything and return the advice. The hold-out is opened, and the opening counted, only
    where decisions of an audit are to be compared with its labels. Raises BadInput,
    RecordRefused."""
    opened = open_dataset(dataset)
    answers = [answer for path in decisions for answer in read_answers(path)]
    texts = {sha: (each.id, each.text) for sha, each in read_new_messages(messages).items()}
    held: dict[str, str] = {}
    if any(answer.purpose == "audit" for answer in answers):
        rows = open_holdout(opened, purpose="advise", subject=opened.digest)
        held = {message_sha256(each.message): each.label for each in rows}
    return advise(
        opened,
        answers,
        texts,
        guideline=guideline,
        embed=_embedder(embeddings),
        with_texts=with_texts,
        holdout_labels=held,
    )


def _embedder(directory: Path | None) -> Embed | None:
    from trainer.model.embeddings import embed, find_embedding_model

    model = directory or find_embedding_model()
    return None if model is None else lambda texts: embed(texts, model)
