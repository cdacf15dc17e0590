"""Everything that is known before the model is loaded: splits, prompt, codes, rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.dataset.examples import Splits, describe, load_splits
from trainer.model.student import load_renderer
from trainer.model.prompt import make_prompt
from trainer.training.recipe import Recipe
from trainer.model.rows import Row, make_rows
from trainer.model.tokens import BaseTokenizer, load_tokenizer
from worker.contract import Code, PromptSpec, Taxonomy


@dataclass(frozen=True, slots=True)
class Prepared:
    """A training's inputs, read and checked."""

    taxonomy: Taxonomy
    splits: Splits
    tokenizer: BaseTokenizer
    spec: PromptSpec
    codes: Mapping[str, Code]
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    holdout: tuple[Row, ...]

    @property
    def label_ids(self) -> list[int]:
        """The codes' token ids, in the taxonomy's order."""
        return [self.codes[label].token_id for label in self.taxonomy.names]

    def to_record(self) -> dict[str, Any]:
        """Return what a manifest says about the data: sizes, counts per label and digests."""
        parts = ("train", "validation", "holdout")
        return {
            "taxonomy_sha256": self.taxonomy.digest,
            **{part: describe(getattr(self.splits, part), self.taxonomy) for part in parts},
        }


def prepare(recipe: Recipe) -> Prepared:
    """Read taxonomy, data and tokenizer, and build every row. Raises BadInput, ContractError."""
    taxonomy = Taxonomy.from_toml(recipe.taxonomy)
    splits = load_splits(
        recipe.data,
        recipe.holdout,
        taxonomy,
        validation_share=recipe.validation_share,
        seed=recipe.seed,
    )
    tokenizer = load_tokenizer(recipe.base)
    spec, codes = make_prompt(
        taxonomy,
        tokenizer.encoders,
        load_renderer(recipe.base),
        instruction=recipe.instruction,
        list_labels=recipe.list_labels,
        descriptions=recipe.descriptions,
        max_message_tokens=recipe.max_message_tokens,
        prefix_block=recipe.prefix_block,
    )
    train, validation, holdout = (
        make_rows(part, spec, codes, tokenizer.encoders.plain)
        for part in (splits.train, splits.validation, splits.holdout)
    )
    return Prepared(taxonomy, splits, tokenizer, spec, codes, train, validation, holdout)
