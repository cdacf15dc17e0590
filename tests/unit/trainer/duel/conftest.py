"""Splits with made-up embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from trainer.dataset.folder import Dataset, Example
from trainer.duel.baselines import EmbeddedSplit

EmbedLetters = Callable[..., EmbeddedSplit]


@pytest.fixture(scope="session")
def embed_letters() -> EmbedLetters:
    """Return a function that embeds examples by a made-up model: counts of a few letters."""

    def embed(examples: tuple[Example, ...], *, embedded: bool = True) -> EmbeddedSplit:
        vectors = np.array(
            [[example.message.count(letter) for letter in "aeiknp"] for example in examples]
        )
        return EmbeddedSplit(examples, vectors.astype(np.float32) if embedded else None, 0.5)

    return embed


@pytest.fixture
def splits(sealed: Dataset, embed_letters: EmbedLetters) -> tuple[EmbeddedSplit, EmbeddedSplit]:
    """Return the training and the validation split."""
    return embed_letters(sealed.train), embed_letters(sealed.validation)
