"""Training rows: a prompt's ids, one answer id, and the check that nothing else is learnt."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainer.dataset.examples import Example
from trainer.errors import BadInput, ProofFailed
from worker.contract import Code, PromptSpec, build_prompt
from worker.contract.tokens import Encode

IGNORE_INDEX = -100
"""The target of a position that is not learnt (the ignore index of cross-entropy)."""

_POOL_BATCHES = 16


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """Token ids of prompt and answer, and for each position its target id or ``IGNORE_INDEX``.

    ``sublabel`` is the message's finer label where the data has one: an extra target of training
    that no file of the adapter knows.
    """

    label: str
    ids: tuple[int, ...]
    targets: tuple[int, ...]
    sublabel: str | None = None

    @property
    def prompt(self) -> tuple[int, ...]:
        """The token ids before the answer. ``verify_loss_mask`` makes sure of it."""
        return self.ids[:-1]

    @property
    def answer(self) -> int:
        """The token id that is learnt after the prompt."""
        return self.targets[-1]


def make_rows(
    examples: Sequence[Example],
    spec: PromptSpec,
    codes: Mapping[str, Code],
    encode_plain: Encode,
) -> tuple[TrainingRow, ...]:
    """Build a row for each example, through the contract's own ``build_prompt``."""
    rows = []
    for example in examples:
        prompt = build_prompt(spec, example.message, encode_plain)
        if prompt is None:
            raise BadInput(f"example {example.id}: the message is empty")
        code = codes[example.label]
        targets = (IGNORE_INDEX,) * len(prompt.ids) + (code.token_id,)
        rows.append(
            TrainingRow(example.label, (*prompt.ids, code.token_id), targets, example.sublabel)
        )
    return tuple(rows)


def verify_loss_mask(
    rows: Sequence[TrainingRow],
    spec: PromptSpec,
    codes: Mapping[str, Code],
    decode: Callable[[Sequence[int]], str],
) -> None:
    """Check every row: the learnt span is the last token, right after the prompt's suffix, and
    decodes to exactly the label's code. Raises ProofFailed, naming the first wrong row.
    """
    for number, row in enumerate(rows):
        learnt = [at for at, target in enumerate(row.targets) if target != IGNORE_INDEX]
        text = decode([row.targets[at] for at in learnt])
        code = codes[row.label].text
        if text != code:
            raise ProofFailed(f"row {number} ({row.label}) learns {text!r} instead of {code!r}")
        if len(row.ids) != len(row.targets) or learnt != [len(row.ids) - 1]:
            raise ProofFailed(f"row {number} ({row.label}) learns at {learnt}, not at its end")
        if row.ids[-1] != row.targets[-1]:
            raise ProofFailed(f"row {number} ({row.label}) holds another answer than it learns")
        if (
            row.prompt[: len(spec.prefix_ids)] != spec.prefix_ids
            or row.prompt[len(row.prompt) - len(spec.suffix_ids) :] != spec.suffix_ids
        ):
            raise ProofFailed(f"row {number} ({row.label}) is not built from the prompt's parts")


def length_grouped_batches(
    rows: Sequence[TrainingRow], size: int, rng: random.Random
) -> Iterator[Sequence[TrainingRow]]:
    """Yield every row once, in shuffled batches of rows of like length (little padding)."""
    order = list(rows)
    rng.shuffle(order)
    pool = size * _POOL_BATCHES
    grouped: list[Sequence[TrainingRow]] = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool], key=lambda row: len(row.ids))
        grouped.extend(chunk[at : at + size] for at in range(0, len(chunk), size))
    rng.shuffle(grouped)
    yield from grouped
