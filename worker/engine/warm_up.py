"""Prompts to answer before the first message, so that no customer waits for a kernel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from worker.contract import Manifest

_MESSAGE_TOKENS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_BATCHES = (1, 2, 8, 32)


def warm_up_rounds(
    manifest: Manifest, prompts: Sequence[Sequence[int]]
) -> Iterator[list[tuple[int, ...]]]:
    """Yield batches of prompts to answer together: ``prompts`` first, then made-up ones, twice.

    The made-up ones have messages of lengths that support messages have and up to the longest,
    cut from the golden prompts at ever other places, so that the prefix cache does not answer
    for the kernels.
    """
    spec = manifest.prompt
    first, last = len(spec.prefix_ids), len(spec.suffix_ids)
    words = [
        one for golden in manifest.golden for one in golden.ids[first : len(golden.ids) - last]
    ]
    lengths = [min(one, spec.max_message_tokens) for one in _MESSAGE_TOKENS]
    number = itertools.count(1)

    def made_up(length: int) -> tuple[int, ...]:
        start = next(number) * 7 % len(words)
        message = itertools.islice(itertools.cycle(words), start, start + length)
        return (*spec.prefix_ids, *message, *spec.suffix_ids)

    for _ in range(2):
        yield from ([tuple(one)] for one in prompts)
        for batch in _BATCHES:
            yield [made_up(lengths[index % len(lengths)]) for index in range(batch)]
        yield [made_up(spec.max_message_tokens)]
