"""Prompts as token ids: of a language model and of an encoder, and the rows that are trained on.

First the tokenizer; then what stands around a message, as the base's chat template or an encoder's
special tokens have it; then rows of such prompts with what they are to learn.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Protocol, TypeVar

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
)
from worker.contract.prompt import Encode
from worker.contract.text import NORMALIZATION

Render = Callable[[list[dict[str, str]]], str]
"""Chat messages (role, content) to the text the base was trained to read, ready for an answer."""

PLACEHOLDER = "<<<MESSAGE>>>"
MARKER = " [...] "

_FILLER = " ."
_FILLER_TRIES = 512
_GAPS = ("\n", "\n\n")
"""Two widths of the gap above the dots, for tokenizers in which a dot with its blank is two."""


PROMPT_DATE = date(2026, 1, 1)
"""The day that a chat template prints which prints today's date: any will do, as long as it
stays."""

_LETTER = "a"
IGNORE_INDEX = -100
"""The target of a position that is not learnt (the ignore index of cross-entropy)."""

_POOL_BATCHES = 16


@dataclass(frozen=True, slots=True)
class BaseTokenizer:
    """Two encodings of one tokenizer, and ids back to text with nothing skipped or tidied."""

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

    def encode_plain(message: str) -> Sequence[int]:
        ids: list[int] = plain.encode(message, add_special_tokens=False).ids
        return ids

    def decode(ids: Sequence[int]) -> str:
        return str(control.decode(list(ids), skip_special_tokens=False))

    def single_tokens() -> Iterable[tuple[str, int]]:
        return _single_tokens(control, added)

    added = added_token_ids(text)
    return BaseTokenizer(Encoders(encode_control, encode_plain, added, single_tokens), decode)


def _single_tokens(tokenizer: Tokenizer, added: frozenset[int]) -> list[tuple[str, int]]:
    """Return every token but the added ones as (text, id): plain letters and digits first, then
    the short ones, then by id, so that codes are as easy to read as the vocabulary allows."""
    ids = set(tokenizer.get_vocab(with_added_tokens=False).values()) - added
    texts = [
        (tokenizer.decode([token_id], skip_special_tokens=False), token_id) for token_id in ids
    ]

    def key(token: tuple[str, int]) -> tuple[bool, int, int]:
        text, token_id = token
        return not (text.isascii() and text.isalnum()), len(text), token_id

    return sorted(texts, key=key)


class Renderer:
    """A chat template as a function of a chat (role, content), ready for an answer.

    Some templates print today's date (those of Llama 3.2 and SmolLM3). An adapter is trained over
    days, resumed, and served for months, on one text: the template takes every day for
    ``PROMPT_DATE``.
    """

    def __init__(self, apply: Callable[..., Any]) -> None:
        self._apply = apply
        self._asked = False

    @property
    def printed_date(self) -> str | None:
        """The day that stands in what was rendered, as ``2026-01-01``; None where the template
        prints none."""
        return PROMPT_DATE.isoformat() if self._asked else None

    def __call__(self, chat: list[dict[str, str]]) -> str:
        """Return the text. Raises ValueError where the template refuses the chat."""
        try:
            text = self._apply(
                chat, tokenize=False, add_generation_prompt=True, strftime_now=self._strftime
            )
        except TemplateError as error:
            raise ValueError(f"the chat template refuses this chat: {error}") from error
        return str(text)

    def _strftime(self, form: str) -> str:
        """Stands for transformers' function of that name, which reads the clock."""
        self._asked = True
        return datetime.combine(PROMPT_DATE, time()).strftime(form)


def load_renderer(base: Path) -> Renderer:
    """Return a base's chat template. Raises BadInput when it has none."""
    from transformers import AutoTokenizer  # takes seconds

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"{base}: cannot load the base's tokenizer: {error}") from error
    if not tokenizer.chat_template:
        raise BadInput(f"{base}: the base has no chat template; use an instruct model")
    return Renderer(tokenizer.apply_chat_template)


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

    The system text is the instruction and, with ``list_labels``, one line per label: its code,
    its name and, with ``descriptions``, its description. With ``prefix_block`` the system text is
    padded so that the prefix fills whole blocks of so many tokens: an engine's prefix cache
    holds whole blocks only. ``redaction`` names the rules that redact personal data in a message.
    Raises BadInput, or ContractError from the choice of codes.
    """
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
    spec = PromptSpec(
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
    return spec, codes


def _split(render: Render, system: str) -> tuple[str, str]:
    """Render around a placeholder and cut it out. Bases without a system role get the system
    text at the top of the user's turn."""
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
    raise BadInput("the base's chat template does not keep the instruction and the message whole")


def _fill_block(system: str, render: Render, encoders: Encoders, block: int) -> str:
    """Append a line of dots until the prefix's length in tokens is a multiple of ``block``."""
    for dots in range(_FILLER_TRIES):
        for gap in _GAPS:
            padded = f"{system}{gap}{(_FILLER * dots).strip()}" if dots else system
            if len(encoders.control(_split(render, padded)[0])) % block == 0:
                return padded
    raise BadInput(f"prefix_block={block}: no padding fits this tokenizer; set prefix_block=0")


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """Switch off what a tokenizer file may carry along: the contract shortens, nobody pads."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


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


class _HasIds(Protocol):
    @property
    def ids(self) -> tuple[int, ...]: ...


RowT = TypeVar("RowT", bound=_HasIds)


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
    decodes to exactly the label's code. Raises ProofFailed, naming the first wrong row and nothing
    of its message.
    """
    for number, row in enumerate(rows):
        learnt = [at for at, target in enumerate(row.targets) if target != IGNORE_INDEX]
        if len(row.ids) != len(row.targets) or learnt != [len(row.ids) - 1]:
            tokens = {0: "no token", 1: "1 token"}.get(len(learnt), f"{len(learnt)} tokens")
            raise ProofFailed(f"row {number} ({row.label}) learns {tokens}, not its last alone")
        if row.ids[-1] != row.targets[-1]:
            raise ProofFailed(f"row {number} ({row.label}) holds another answer than it learns")
        if (
            row.prompt[: len(spec.prefix_ids)] != spec.prefix_ids
            or row.prompt[len(row.prompt) - len(spec.suffix_ids) :] != spec.suffix_ids
        ):
            raise ProofFailed(f"row {number} ({row.label}) is not built from the prompt's parts")
        answer, code = decode([row.answer]), codes[row.label].text
        if answer != code:
            raise ProofFailed(f"row {number} ({row.label}) learns {answer!r} instead of {code!r}")


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


def length_grouped_batches(
    rows: Sequence[RowT], size: int, rng: random.Random
) -> Iterator[Sequence[RowT]]:
    """Yield every row once, in shuffled batches of rows of like length (little padding)."""
    order = list(rows)
    rng.shuffle(order)
    pool = size * _POOL_BATCHES
    grouped: list[Sequence[RowT]] = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool], key=lambda row: len(row.ids))
        grouped.extend(chunk[at : at + size] for at in range(0, len(chunk), size))
    rng.shuffle(grouped)
    yield from grouped
