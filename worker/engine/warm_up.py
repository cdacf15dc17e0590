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
    """Yield batches of prompts to answer together: ``prompts`` first, then made-up ones.

    The made-up ones have messages of lengths that support messages have and up to the longest,
    cut from the golden prompts at ever other places, so that the prefix cache does not answer
    for the kernels. A second round finds nothing left to build: the messages that follow take
    the same time after one round and after two.
    """
    spec = manifest.prompt
    first, last = len(spec.prefix_ids), len(spec.suffix_ids)
    words = [
        token for golden in manifest.golden for token in golden.ids[first : len(golden.ids) - last]
    ]
    lengths = [min(length, spec.max_message_tokens) for length in _MESSAGE_TOKENS]
    number = itertools.count(1)

    def made_up(length: int) -> tuple[int, ...]:
        start = next(number) * 7 % len(words)
        message = itertools.islice(itertools.cycle(words), start, start + length)
        return (*spec.prefix_ids, *message, *spec.suffix_ids)

    yield from ([tuple(prompt)] for prompt in prompts)
    for batch in _BATCHES:
        yield [made_up(lengths[index % len(lengths)]) for index in range(batch)]
    yield [made_up(spec.max_message_tokens)]
