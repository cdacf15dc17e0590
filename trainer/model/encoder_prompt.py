"""What an encoder reads: its special tokens around the message, as the contract's prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trainer.errors import BadInput
from trainer.model.prompt import MARKER
from worker.contract import Encoders, PromptSpec
from worker.contract.text import NORMALIZATION

_LETTER = "a"


def make_encoder_prompt(
    base: Path, encoders: Encoders, *, max_message_tokens: int, redaction: str | None
) -> PromptSpec:
    """Return the prompt of an encoder: the tokens that its tokenizer puts around every text
    (``[CLS]`` and ``[SEP]``), found by having it encode one. Raises BadInput."""
    before, after = _special_tokens(base / "tokenizer.json")
    prefix_ids, suffix_ids = tuple(encoders.control(before)), tuple(encoders.control(after))
    room = most_message_tokens(base)
    if max_message_tokens > room:
        raise BadInput(
            f"max_message_tokens={max_message_tokens}: this encoder has room for {room} tokens of "
            "a message: set it to that or less"
        )
    return PromptSpec(
        prefix=before,
        suffix=after,
        marker=MARKER,
        prefix_ids=prefix_ids,
        suffix_ids=suffix_ids,
        marker_ids=tuple(encoders.plain(MARKER)),
        max_message_tokens=max_message_tokens,
        normalization=NORMALIZATION,
        redaction=redaction,
    )


def most_message_tokens(base: Path) -> int:
    """Return how many tokens of a message fit between the special ones. Raises BadInput."""
    encoding = _encode_letter(base / "tokenizer.json")
    special: list[int] = encoding.special_tokens_mask
    return most_tokens(base) - sum(special)


def most_tokens(base: Path) -> int:
    """Return how many tokens an encoder takes in a row, special ones included. Raises BadInput."""
    path = base / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        positions = int(config["max_position_embeddings"])
        # RoBERTa and its kin count positions from behind the padding's id.
        offset = int(config["pad_token_id"]) + 1 if _counts_from_padding(config) else 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot read the encoder's length: {error}") from error
    return positions - offset


def _counts_from_padding(config: Mapping[str, Any]) -> bool:
    return "roberta" in str(config.get("model_type", "")) or config.get("model_type") in {
        "camembert",
        "mpnet",
    }


def _encode_letter(path: Path) -> Any:
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        tokenizer.no_padding()
        return tokenizer.encode(_LETTER, add_special_tokens=True)
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"{path}: not a tokenizer this version can read: {error}") from error


def _special_tokens(path: Path) -> tuple[str, str]:
    """Return the texts of the special tokens before and after a text."""
    found = _encode_letter(path)
    marks = found.special_tokens_mask
    if 0 not in marks:
        raise BadInput(f"{path}: the tokenizer has no token for a letter: use an encoder of text")
    first = marks.index(0)
    last = len(marks) - marks[::-1].index(0)
    if 1 in marks[first:last]:
        raise BadInput(f"{path}: its special tokens stand within the text, not around it")
    return "".join(found.tokens[:first]), "".join(found.tokens[last:])
