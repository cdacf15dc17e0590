"""The prompt: fixed prefix ids, then the message's ids, then fixed suffix ids.

The fixed part comes first, so that an engine's prefix cache holds it after the first request.
Training rows and serving requests are assembled here, by the same code from the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from worker.contract.codec import LEAVE_OUT_EMPTY
from worker.contract.redact import REDACTION, redact_head, redact_personal_data, redact_tail
from worker.contract.text import NORMALIZATION, is_too_long, normalize

# How text becomes token ids, for training and serving alike.
#
# The contract never imports a tokenizer library. Its callers pass in two functions:
#
# - ``encode_control``: text to ids with control tokens recognized, for the fixed parts of a prompt;
# - ``encode_plain``: text to ids with every control-token string taken literally, for messages.
#
# Neither adds a beginning-of-sequence token by itself: the fixed parts hold what the base expects.


Encode = Callable[[str], Sequence[int]]
SingleTokens = Callable[[], Iterable[tuple[str, int]]]
"""The texts of a vocabulary's tokens with their ids, control tokens left out."""


def no_tokens() -> Iterable[tuple[str, int]]:
    """Offer none: anyone who serves an adapter reads its codes and chooses none."""
    return ()


@dataclass(frozen=True, slots=True)
class Encoders:
    """The two encodings of one tokenizer, and the ids that a message must never contain.

    ``single_tokens`` is for anyone who chooses codes for many labels, in the order of preference.
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


_CHARS_PER_TOKEN = 16
"""Pre-cut width: a long text is cut to this many characters a token at either end before it is
redacted and tokenized, so that a message of megabytes costs no more than one of kilobytes. Of
either end half the budget is kept, so that a kept token has 32 characters: text has three to five,
and an address or a number that becomes a placeholder of several tokens hardly ever more."""


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """The prompt's fixed parts and the message's budget, as a manifest carries them.

    ``prefix``, ``suffix`` and ``marker`` are kept as text and as the ids they had when the
    adapter was trained; the ids are what is sent. ``max_message_tokens`` counts the marker that
    stands where a long message was shortened. ``normalization`` names the rules for the text
    (``worker.contract.text``). ``redaction`` names the rules by which personal
    data is redacted before a message is tokenized; None leaves it as it is. ``prompt_date`` is the
    day (``2026-01-01``) that the base's chat template was told where it prints today's date: the
    fixed parts hold it, on every day.
    """

    prefix: str
    suffix: str
    marker: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    marker_ids: tuple[int, ...]
    max_message_tokens: int
    normalization: str
    redaction: str | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    prompt_date: str | None = field(default=None, metadata=LEAVE_OUT_EMPTY)

    def __post_init__(self) -> None:
        if self.max_message_tokens < len(self.marker_ids) + 2:
            raise ValueError(f"max_message_tokens={self.max_message_tokens} leaves no message")
        if self.normalization != NORMALIZATION:
            raise ValueError(
                f"normalization {self.normalization!r} is not known here; {NORMALIZATION!r} is"
            )
        if self.redaction not in {None, REDACTION}:
            raise ValueError(f"redaction {self.redaction!r} is not known here; {REDACTION!r} is")
        if self.prompt_date is not None:
            _require_day(self.prompt_date)

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that can come out, in tokens, without the answer."""
        return len(self.prefix_ids) + self.max_message_tokens + len(self.suffix_ids)


def _require_day(text: str) -> None:
    try:
        written = date.fromisoformat(text).isoformat()
    except ValueError:
        written = ""
    if written != text:
        raise ValueError(f"prompt_date {text!r} is no day such as '2026-01-01'")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The token ids of one prompt, and whether its message was shortened to fit."""

    ids: tuple[int, ...]
    truncated: bool


def build_prompt(spec: PromptSpec, message: str, encode_plain: Encode) -> Prompt | None:
    """Assemble the prompt for one raw message; None when normalizing leaves nothing of it."""
    text = normalize(message)
    if not text:
        return None
    ids, truncated = _message_ids(spec, text, encode_plain)
    return Prompt(spec.prefix_ids + ids + spec.suffix_ids, truncated or is_too_long(message))


def _message_ids(spec: PromptSpec, text: str, encode: Encode) -> tuple[tuple[int, ...], bool]:
    """Redact, tokenize, and shorten in the middle: support messages say what they want first or
    last."""
    budget, redacts = spec.max_message_tokens, spec.redaction is not None
    width = budget * _CHARS_PER_TOKEN
    if len(text) > 2 * width:
        head = tuple(encode(redact_head(text, width) if redacts else text[:width]))
        tail = tuple(encode(redact_tail(text, width) if redacts else text[-width:]))
    else:
        head = tail = tuple(encode(redact_personal_data(text)[0] if redacts else text))
        if len(head) <= budget:
            return head, False
    room = budget - len(spec.marker_ids)
    tail_tokens = room // 2
    head_tokens = room - tail_tokens
    return head[:head_tokens] + spec.marker_ids + tail[max(0, len(tail) - tail_tokens) :], True
