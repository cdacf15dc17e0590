"""Build the prompt: fixed prefix ids, then the message's ids, then fixed suffix ids.

The long fixed part comes first, so that an engine's prefix cache holds it after the first request.
Training rows and serving requests are built by this same code from the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from typing import Any

from worker.contract.codec import LEAVE_OUT_EMPTY
from worker.contract.redact import REDACTION, redact_head, redact_personal_data, redact_tail
from worker.contract.text import NORMALIZATION, is_too_long, normalize

# The contract imports no tokenizer library. Callers pass in two functions:
#
# - ``control``: text to ids with control tokens recognized, for the fixed parts of a prompt;
# - ``plain``: text to ids with control-token strings read as plain text, for messages.
#
# Neither adds a beginning-of-sequence token: the fixed parts have what the base expects.


Encode = Callable[[str], Sequence[int]]
SingleTokens = Callable[[], Iterable[tuple[str, int]]]
"""The texts of a vocabulary's tokens, without control tokens, with their ids."""


def no_tokens() -> Iterable[tuple[str, int]]:
    """For serving: a worker reads an adapter's codes and chooses none."""
    return ()


@dataclass(frozen=True, slots=True)
class Encoders:
    """The two encodings of one tokenizer, and the ids that a message must never contain.

    ``single_tokens`` offers tokens as label codes, in order of preference.
    """

    control: Encode
    plain: Encode
    control_ids: frozenset[int]
    single_tokens: SingleTokens = no_tokens


def all_added_tokens_special(tokenizer_json: str) -> str:
    """Return a ``tokenizer.json`` in which every added token counts as special.

    The tokenizers library can read special tokens as plain text, but only those marked special.
    Some bases leave fill-in-the-middle or tool-call tokens unmarked, and a customer who types one
    would reach the model's control vocabulary. So mark them all, then switch the matching off.
    """
    data: dict[str, Any] = json.loads(tokenizer_json)
    for token in data.get("added_tokens", []):
        token["special"] = True
    return json.dumps(data, ensure_ascii=False)


def added_token_ids(tokenizer_json: str) -> frozenset[int]:
    """Return the ids of a ``tokenizer.json``'s control tokens, which no message may contain.

    The unknown token is listed with them but does not count: WordPiece, WordLevel and Unigram
    vocabularies use it for characters that they lack, so ordinary messages contain it.
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


def plain_encode(tokenizer: Any, control_ids: frozenset[int]) -> Encode:
    """Return the plain encoding of a ``tokenizers.Tokenizer`` with ``encode_special_tokens``.

    A Unigram vocabulary (XLM-R, multilingual E5) lists its control tokens among the pieces of
    words, so ``</s>`` in a message would be one even as ordinary text: it is cut there.
    """

    def encode(text: str) -> Sequence[int]:
        found = tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = found.ids
        if control_ids.isdisjoint(ids):
            return ids
        cuts = [
            start + 1
            for token, (start, end) in zip(ids, found.offsets, strict=True)
            if token in control_ids and end - start > 1
        ]
        if not cuts:
            return ids
        return [
            token
            for start, end in pairwise((0, *cuts, len(text)))
            for token in encode(text[start:end])
        ]

    return encode


# A long text is cut to this many characters per budgeted token at either end before redaction and
# tokenization, so that a message of megabytes costs no more than one of kilobytes. Each end fills
# half the budget, so a kept token may have 32 characters. Text has three to five; redaction can
# only replace longer stretches, such as mail addresses, that rarely exceed it.
_CHARS_PER_TOKEN = 16


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """The prompt's fixed parts and the message's budget, as a manifest carries them.

    ``prefix``, ``suffix`` and ``marker`` are kept as text and as the ids they had in training; the
    ids are sent. ``marker`` replaces the middle of a shortened message and counts in
    ``max_message_tokens``. ``normalization`` and ``redaction`` name the rules of
    ``worker.contract.text`` and ``worker.contract.redact``; without ``redaction`` personal data is
    kept. ``prompt_date`` is the day (``2026-01-01``) in the fixed parts if the base's chat template
    prints today's date: training fixed it, so that the prompt is the same on every day.
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
                f"normalization {self.normalization!r} is unknown; this version has "
                f"{NORMALIZATION!r}"
            )
        if self.redaction not in {None, REDACTION}:
            raise ValueError(
                f"redaction {self.redaction!r} is unknown; this version has {REDACTION!r}"
            )
        if self.prompt_date is not None:
            _require_day(self.prompt_date)

    @property
    def max_prompt_tokens(self) -> int:
        """The length of the longest possible prompt in tokens, without the answer."""
        return len(self.prefix_ids) + self.max_message_tokens + len(self.suffix_ids)


def _require_day(text: str) -> None:
    try:
        written = date.fromisoformat(text).isoformat()
    except ValueError:
        written = ""
    if written != text:
        raise ValueError(f"prompt_date {text!r} must be a day such as '2026-01-01'")


# Not frozen: one is made for each record, and a frozen dataclass takes four times as long to make.
@dataclass(slots=True)
class Prompt:
    """The token ids of one prompt, whether its message was shortened, and the message's normalized
    text, whole."""

    ids: tuple[int, ...]
    truncated: bool
    text: str


def build_prompt(spec: PromptSpec, message: str, encode_plain: Encode) -> Prompt | None:
    """Build the prompt for one raw message; None if nothing is left after normalization."""
    text = normalize(message)
    if not text:
        return None
    ids, truncated = _message_ids(spec, text, encode_plain)
    truncated = truncated or is_too_long(message)
    return Prompt(spec.prefix_ids + ids + spec.suffix_ids, truncated, text)


def _message_ids(spec: PromptSpec, text: str, encode: Encode) -> tuple[tuple[int, ...], bool]:
    """Redact, tokenize, and cut the middle: support messages say what they want first or last."""
    budget, redacts = spec.max_message_tokens, spec.redaction is not None
    width = budget * _CHARS_PER_TOKEN
    # Up to twice the width the two ends would overlap, and part of the text would be read twice.
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
