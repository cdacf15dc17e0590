"""The prompt: fixed prefix ids, then the message's ids, then fixed suffix ids.

The fixed part comes first, so that an engine's prefix cache holds it after the first request.
Training rows and serving requests are assembled here, by the same code from the same ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from worker.contract.codec import LEAVE_OUT_EMPTY
from worker.contract.redact import REDACTION, redact_head, redact_personal_data, redact_tail
from worker.contract.text import NORMALIZATION, is_too_long, normalize
from worker.contract.tokens import Encode

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
