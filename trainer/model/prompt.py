"""Prompts as token ids, and rows of them with their answers, padded to batches."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

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
from worker.contract.text import NORMALIZATION
from worker.contract.tokens import Encode

Render = Callable[[list[dict[str, str]]], str]
"""Chat messages (role, content) to the text the base was trained to read, ready for an answer."""

PLACEHOLDER = "<<<MESSAGE>>>"
MARKER = " [...] "

_FILLER = " ."
_FILLER_TRIES = 512
_GAPS = ("\n", "\n\n")
"""Two widths of the gap above the dots, for tokenizers in which a dot with its blank is two."""


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


class _HasIds(Protocol):
    @property
    def ids(self) -> tuple[int, ...]: ...


RowT = TypeVar("RowT", bound=_HasIds)

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
