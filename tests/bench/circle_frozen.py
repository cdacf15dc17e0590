"""What frozen sentence embeddings say of a message, computed once and kept over many commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.bench.circle_data import Messages
from trainer.model import embeddings
from trainer.model.encoder import Classifier
from worker.contract.text import normalize


@contextmanager
def kept_embeddings(messages: Messages) -> Iterator[None]:
    """Have every command in this process compute a message's embedding once.

    Exact but for rounding: kind ``embedding-linear`` never changes its encoder, and the same tokens
    pool to the same vector in any batch. Only models without LoRA may be trained meanwhile.
    """
    pool, embed = Classifier.pool, embeddings.embed
    pooled: dict[bytes, Tensor] = {}
    known = {
        normalize(text): row for text, row in zip(messages.texts, messages.features, strict=True)
    }

    def pool_once(self: Classifier, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        counts = attention_mask.sum(dim=1).tolist()
        keys = [row[:count].numpy().tobytes() for row, count in zip(input_ids, counts, strict=True)]
        new = [at for at, key in enumerate(keys) if key not in pooled]
        if new:
            longest = max(counts[at] for at in new)
            rows = pool(self, input_ids[new, :longest], attention_mask[new, :longest])
            pooled.update((keys[at], row) for at, row in zip(new, rows.detach(), strict=True))
        return torch.stack([pooled[key] for key in keys])

    def embed_once(texts: Sequence[str], directory: Path) -> NDArray[np.float32]:
        rows: list[Any] = [known.get(normalize(text)) for text in texts]
        new = [at for at, row in enumerate(rows) if row is None]
        found = embed([texts[at] for at in new], directory) if new else ()
        for at, row in zip(new, found, strict=True):
            rows[at] = known[normalize(texts[at])] = row
        return np.stack(rows)

    with patch.object(Classifier, "pool", pool_once), patch.object(embeddings, "embed", embed_once):
        yield
