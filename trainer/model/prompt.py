"""Prompts as token ids, for language models and encoders, and the rows to train on.

First the tokenizer, then the text around a message (from the base's chat template or an encoder's
special tokens), then rows of prompts with their targets.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from trainer.dataset.folder import Example
from trainer.errors import BadInput, ProofFailed
from worker.contract import (
    Code,
    Encoders,
    PromptSpec,
    Taxonomy,
    added_token_ids,
    all_added_tokens_special,
    build_prompt,
    choose_codes,
    plain_encode,
)
from worker.contract.prompt import Encode
from worker.contract.text import NORMALIZATION

Render = Callable[[list[dict[str, str]]], str]
"""Renders chat messages (role, content) to the base's prompt format, up to the answer."""

PLACEHOLDER = "<<<MESSAGE>>>"
MARKER = " [...] "

_FILLER = " ."
_FILLER_TRIES = 512
_GAPS = ("\n", "\n\n")
"""Two sizes of the gap above the dots, for tokenizers that split a space and a dot in two."""


PROMPT_DATE = date(2026, 1, 1)
"""The fixed date for chat templates that print today's date."""

_LETTER = "a"

# Batches are sorted by length within a pool only: a larger pool pads less and mixes less.
_POOL_BATCHES = 16


@dataclass(frozen=True, slots=True)
class BaseTokenizer:
    """A tokenizer's two encodings, and its exact decoding."""

    encoders: Encoders
    decode: Callable[[Sequence[int]], str]


def load_tokenizer(base: Path) -> BaseTokenizer:
    """Load ``tokenizer.json`` of a base model's directory. Raises BadInput.

    ``control`` recognizes control tokens; ``plain`` is a second tokenizer in which every added
    token counts as special and special tokens are read as ordinary text.
    """
    path = base / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot read the base's tokenizer: {error.strerror}") from error
    try:
        control = _bare(Tokenizer.from_str(text))
        plain = _bare(Tokenizer.from_str(all_added_tokens_special(text)))
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"{path}: not a tokenizer this version can read: {error}") from error
    plain.encode_special_tokens = True

    def encode_control(part: str) -> Sequence[int]:
        ids: list[int] = control.encode(part, add_special_tokens=False).ids
        return ids

    def decode(ids: Sequence[int]) -> str:
        return str(control.decode(list(ids), skip_special_tokens=False))

    def single_tokens() -> Iterable[tuple[str, int]]:
        return _single_tokens(control, added)

    added = added_token_ids(text)
    encoders = Encoders(encode_control, plain_encode(plain, added), added, single_tokens)
    return BaseTokenizer(encoders, decode)


def _single_tokens(tokenizer: Tokenizer, added: frozenset[int]) -> list[tuple[str, int]]:
    """Return every token except the added ones as (text, id): ASCII letters and digits first, then
    by length, so that codes are easy to read."""
    ids = set(tokenizer.get_vocab(with_added_tokens=False).values()) - added
    texts = [
        (tokenizer.decode([token_id], skip_special_tokens=False), token_id) for token_id in ids
    ]

    def key(token: tuple[str, int]) -> tuple[bool, int, int]:
        text, token_id = token
        return not (text.isascii() and text.isalnum()), len(text), token_id

    return sorted(texts, key=key)


class Renderer:
    """A chat template as a function of chat messages (role, content).

    Templates that print today's date (Llama 3.2, SmolLM3) print ``PROMPT_DATE``, because an adapter
    must be trained and served with the same text.
    """

    def __init__(self, apply: Callable[..., Any], end: str = "") -> None:
        self.end = end
        """The text of the token that ends an answer, empty if unknown."""
        self._apply = apply
        self._asked = False

    @property
    def printed_date(self) -> str | None:
        """The rendered date, as ``2026-01-01``; None if the template prints none."""
        return PROMPT_DATE.isoformat() if self._asked else None

    def __call__(self, chat: list[dict[str, str]], *, answered: bool = False) -> str:
        """Return the text, up to the answer or, if it is ``answered``, with it. Raises ValueError
        if the template refuses the chat."""
        try:
            text = self._apply(
                chat,
                tokenize=False,
                add_generation_prompt=not answered,
                strftime_now=self._strftime,
            )
        except TemplateError as error:
            raise ValueError(f"the chat template refuses this chat: {error}") from error
        return str(text)

    def _strftime(self, form: str) -> str:
        """Replace transformers' function, which reads the clock."""
        # A template that reads the clock would give a training that is resumed after midnight
        # another prompt.
        self._asked = True
        return datetime.combine(PROMPT_DATE, time()).strftime(form)


def load_renderer(base: Path, *, needs_template: bool = True) -> Renderer:
    """Return a base's chat template. Raises BadInput if it has none, though one is needed."""
    from transformers import AutoTokenizer  # takes seconds

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"{base}: cannot load the base's tokenizer: {error}") from error
    if needs_template and not tokenizer.chat_template:
        raise BadInput(f"{base}: the base has no chat template; use an instruct model")
    return Renderer(tokenizer.apply_chat_template, str(tokenizer.eos_token or ""))


def make_prompt(
    taxonomy: Taxonomy,
    encoders: Encoders,
    render: Render,
    *,
    instruction: str,
    list_labels: bool,
    descriptions: bool,
    max_message_tokens: int,
    prefix_block: int | None,
    redaction: str | None = None,
) -> tuple[PromptSpec, Mapping[str, Code]]:
    """Return the prompt and each label's code.

    The system text is the instruction and, with ``list_labels``, a line for each label with its
    code, name and, with ``descriptions``, description. With ``prefix_block`` it is padded so that
    the prefix fills whole blocks of that many tokens, since an engine's prefix cache holds whole
    blocks only. ``redaction`` names the rules that redact personal data. Raises BadInput, or
    ContractError from the choice of codes.
    """
    # Codes first: the system text lists them, and the suffix does not depend on that text.
    _, suffix = _split(render, instruction)
    codes = choose_codes(taxonomy.names, suffix, encoders.control, encoders.single_tokens)
    lines = [instruction]
    if list_labels:
        for label in taxonomy.labels:
            line = f"{codes[label.name].text} {label.name}"
            lines.append(f"{line}: {label.description}" if descriptions else line)
    system = "\n".join(lines)
    if prefix_block:
        system = _fill_block(system, render, encoders, prefix_block)
    prefix, suffix = _split(render, system)
    spec = make_spec(
        prefix, suffix, encoders, max_message_tokens=max_message_tokens, redaction=redaction
    )
    return spec, codes


def make_spec(
    prefix: str,
    suffix: str,
    encoders: Encoders,
    *,
    max_message_tokens: int,
    redaction: str | None,
) -> PromptSpec:
    """Return the prompt with these texts before and after a message."""
    return PromptSpec(
        prefix=prefix,
        suffix=suffix,
        marker=MARKER,
        prefix_ids=tuple(encoders.control(prefix)),
        suffix_ids=tuple(encoders.control(suffix)),
        marker_ids=tuple(encoders.plain(MARKER)),
        max_message_tokens=max_message_tokens,
        normalization=NORMALIZATION,
        redaction=redaction,
    )


def _split(render: Render, system: str) -> tuple[str, str]:
    """Render a placeholder for the message, and return the texts before and after it. Bases without
    a system role get the system text at the top of the user's turn."""
    chats = (
        [{"role": "system", "content": system}, {"role": "user", "content": PLACEHOLDER}],
        [{"role": "user", "content": f"{system}\n\n{PLACEHOLDER}"}],
    )
    for chat in chats:
        try:
            text = render(chat)
        except ValueError:  # the template refused the role; the next chat avoids it
            continue
        if text.count(PLACEHOLDER) == 1 and text.count(system) == 1:
            prefix, suffix = text.split(PLACEHOLDER)
            return prefix, suffix
    raise BadInput(
        "the base's chat template changes the instruction or the message: use another base"
    )


def _fill_block(system: str, render: Render, encoders: Encoders, block: int) -> str:
    """Append a line of dots until the prefix's length in tokens is a multiple of ``block``."""
    for dots in range(_FILLER_TRIES):
        for gap in _GAPS:
            padded = f"{system}{gap}{(_FILLER * dots).strip()}" if dots else system
            if len(encoders.control(_split(render, padded)[0])) % block == 0:
                return padded
    raise BadInput(f"prefix_block={block}: no padding fits this tokenizer; set prefix_block=0")


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """Switch off a tokenizer file's truncation and padding: the contract does the truncation."""
    # all-MiniLM-L6-v2's file, for one, pads every text to 128 tokens.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def make_encoder_prompt(
    base: Path,
    encoders: Encoders,
    *,
    max_message_tokens: int,
    redaction: str | None,
    message_prefix: str = "",
) -> PromptSpec:
    """Return the prompt of an encoder: its special tokens around the message, such as ``[CLS]`` and
    ``[SEP]``, and ``message_prefix`` before it. Raises BadInput."""
    spec = surround(
        base / "tokenizer.json",
        encoders,
        max_message_tokens=max_message_tokens,
        redaction=redaction,
        message_prefix=message_prefix,
    )
    room = most_tokens(base) - len(spec.prefix_ids) - len(spec.suffix_ids)
    if max_message_tokens > room:
        raise BadInput(
            f"max_message_tokens={max_message_tokens}: this encoder reads at most {room} tokens of "
            "a message: set it to that or less"
        )
    return spec


def surround(
    tokenizer: Path,
    encoders: Encoders,
    *,
    max_message_tokens: int,
    redaction: str | None,
    message_prefix: str = "",
) -> PromptSpec:
    """Return the prompt of an encoder, by its ``tokenizer.json`` alone. Raises BadInput."""
    before, after = special_tokens(tokenizer)
    if message_prefix:
        before = _with_prefix(before, message_prefix, encoders)
    return make_spec(
        before, after, encoders, max_message_tokens=max_message_tokens, redaction=redaction
    )


def _with_prefix(special: str, prefix: str, encoders: Encoders) -> str:
    """Return the special tokens with the prefix, so that with a message after it the tokens are
    those of the whole text, if that can be: SentencePiece puts the space at the word that follows,
    byte pairs put it into that word."""
    whole = [*encoders.control(f"{special}{prefix}message")]
    forms = (special + prefix, special + prefix.rstrip())
    rest = [*encoders.plain("message")]
    return next((each for each in forms if [*encoders.control(each), *rest] == whole), forms[0])


def most_message_tokens(base: Path) -> int:
    """Return the most message tokens that fit between the special ones. Raises BadInput."""
    encoding = _encode_letter(base / "tokenizer.json")
    special: list[int] = encoding.special_tokens_mask
    return most_tokens(base) - sum(special)


def most_tokens(base: Path) -> int:
    """Return an encoder's most tokens, special ones included. Raises BadInput."""
    path = base / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        positions = int(config["max_position_embeddings"])
        # RoBERTa and related models count positions from the padding's id + 1.
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


def special_tokens(path: Path) -> tuple[str, str]:
    """Return the texts of the special tokens before and after a text."""
    found = _encode_letter(path)
    marks = found.special_tokens_mask
    if 0 not in marks:
        raise BadInput(f"{path}: the tokenizer has no token for a letter: use an encoder of text")
    first = marks.index(0)
    last = len(marks) - marks[::-1].index(0)
    if 1 in marks[first:last]:
        raise BadInput(
            f"{path}: its special tokens are within the text, not around it: use another base"
        )
    return "".join(found.tokens[:first]), "".join(found.tokens[last:])


@dataclass(frozen=True, slots=True)
class Row:
    """A message to learn: the token ids of its prompt, and the one to answer with, None if a head
    answers. ``sublabel`` is an additional training target, if the data has one; the adapter does
    not keep it. ``place`` is the message's among its split's; ``is_copy`` is whether the message
    is a copy with an instruction in it."""

    label: str
    prompt: tuple[int, ...]
    answer: int | None = None
    sublabel: str | None = None
    place: int = 0
    is_copy: bool = False


def make_rows(
    examples: Sequence[Example],
    spec: PromptSpec,
    encode_plain: Encode,
    codes: Mapping[str, Code] | None = None,
) -> tuple[Row, ...]:
    """Build a row for each example, through the contract's own ``build_prompt``. Raises
    BadInput."""
    rows = []
    for place, example in enumerate(examples):
        prompt = build_prompt(spec, example.message, encode_plain)
        if prompt is None:
            raise BadInput(f"example {example.id}: the message is empty")
        answer = codes[example.label].token_id if codes else None
        rows.append(Row(example.label, prompt.ids, answer, example.sublabel, place))
    return tuple(rows)


def verify_answers(
    rows: Sequence[Row],
    spec: PromptSpec,
    codes: Mapping[str, Code],
    decode: Callable[[Sequence[int]], str],
) -> None:
    """Check that each row's prompt is built from the prompt's parts, and that its answer decodes to
    the label's code. Raises ProofFailed that names the first wrong row and no text."""
    # No mask over all positions says what is learned: a mask that is wrong with only a warning is a
    # known trap of training libraries (TRL issue 6105). A row has one answer, and the loss is
    # computed at the prompt's last position alone.
    for number, row in enumerate(rows):
        if message_of(row.prompt, spec) is None or row.answer is None:
            raise ProofFailed(f"row {number} ({row.label}) is not built from the prompt's parts")
        answer, code = decode([row.answer]), codes[row.label].text
        if answer != code:
            raise ProofFailed(f"row {number} ({row.label}) learns {answer!r} instead of {code!r}")


def message_of(prompt: tuple[int, ...], spec: PromptSpec) -> tuple[int, ...] | None:
    """Return the ids between the prompt's parts, None if these do not stand around them."""
    start, end = len(spec.prefix_ids), len(prompt) - len(spec.suffix_ids)
    is_built = prompt[:start] == spec.prefix_ids and prompt[end:] == spec.suffix_ids
    return prompt[start:end] if is_built else None


def length_grouped_batches(
    rows: Sequence[Row], size: int, rng: random.Random
) -> Iterator[Sequence[Row]]:
    """Yield every row once, in shuffled batches of rows of similar length, for little padding."""
    order = list(rows)
    rng.shuffle(order)
    pool = size * _POOL_BATCHES
    grouped: list[Sequence[Row]] = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool], key=lambda row: len(row.prompt))
        grouped.extend(chunk[at : at + size] for at in range(0, len(chunk), size))
    # Shuffled again, or each pool of batches would go from short messages to long ones.
    rng.shuffle(grouped)
    yield from grouped
