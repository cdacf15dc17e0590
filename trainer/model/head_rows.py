"""Rows to train a classification head on: prompts, and the class of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.dataset.folder import Example
from trainer.errors import BadInput
from trainer.model.prompt import BaseTokenizer
from worker.contract import PromptSpec, build_prompt


@dataclass(frozen=True, slots=True)
class HeadRow:
    """Token ids of a prompt, the message and what stands around it, and what it is to be filed
    under; ``sublabel`` is its finer label where the data has one."""

    label: str
    ids: tuple[int, ...]
    sublabel: str | None = None

    @property
    def prompt(self) -> tuple[int, ...]:
        """The token ids that are read: all of them."""
        return self.ids


def make_head_rows(
    examples: Sequence[Example], spec: PromptSpec, tokenizer: BaseTokenizer
) -> tuple[HeadRow, ...]:
    """Build a row for each example, through the contract's own ``build_prompt``. Raises
    BadInput."""
    rows = []
    for example in examples:
        prompt = build_prompt(spec, example.message, tokenizer.encoders.plain)
        if prompt is None:
            raise BadInput(f"example {example.id}: the message is empty")
        rows.append(HeadRow(example.label, prompt.ids, example.sublabel))
    return tuple(rows)
