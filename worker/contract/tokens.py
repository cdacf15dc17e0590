"""How text becomes token ids, for training and serving alike.

The contract never imports a tokenizer library. Its callers pass in two functions:

- ``encode_control``: text to ids with control tokens recognized, for the fixed parts of a prompt;
- ``encode_plain``: text to ids with every control-token string taken literally, for messages.

Neither adds a beginning-of-sequence token by itself: the fixed parts hold what the base expects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Encode = Callable[[str], Sequence[int]]
SingleTokens = Callable[[], Iterable[tuple[str, int]]]
"""The texts of a vocabulary's tokens with their ids, control tokens left out."""


def no_tokens() -> Iterable[tuple[str, int]]:
    """Offer none: whoever serves an adapter reads its codes and chooses none."""
    return ()


@dataclass(frozen=True, slots=True)
class Encoders:
    """The two encodings of one tokenizer, and the ids that a message must never contain.

    ``single_tokens`` is for whoever chooses codes for many labels, in the order of preference.
    """

    control: Encode
    plain: Encode
    control_ids: frozenset[int]
    single_tokens: SingleTokens = no_tokens


def all_added_tokens_special(tokenizer_json: str) -> str:
    """Return a ``tokenizer.json`` in which every added token counts as special.

    Tokenizers that can be told to take special tokens literally still match added tokens that
    are not marked so (fill-in-the-middle or tool-call marks, in some bases). A customer who
    types one must not reach the model's control vocabulary: mark them all, then switch special
    matching off.
    """
    data: dict[str, Any] = json.loads(tokenizer_json)
    for token in data.get("added_tokens", []):
        token["special"] = True
    return json.dumps(data, ensure_ascii=False)


def added_token_ids(tokenizer_json: str) -> frozenset[int]:
    """Return the ids of the added (control) tokens of a ``tokenizer.json`` that text must not have.

    The token for what a vocabulary lacks is not one of them, though it is listed there: it is what
    WordPiece, WordLevel and Unigram vocabularies make of a character that they do not know.
    """
    data: dict[str, Any] = json.loads(tokenizer_json)
    added = {int(token["id"]): token.get("content") for token in data.get("added_tokens", [])}
    model = data.get("model") or {}
    unknown = model.get("unk_token") if model.get("type") in {"WordPiece", "WordLevel"} else None
    unknown_id = model.get("unk_id") if model.get("type") == "Unigram" else None
    return frozenset(
        token_id
        for token_id, content in added.items()
        if token_id != unknown_id and (unknown is None or content != unknown)
    )
