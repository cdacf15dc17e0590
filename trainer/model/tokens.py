"""The base's tokenizer as the contract wants it. The only file that imports ``tokenizers``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from trainer.errors import BadInput
from worker.contract import Encoders, added_token_ids, all_added_tokens_special


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

    return BaseTokenizer(Encoders(encode_control, encode_plain, added_token_ids(text)), decode)


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """Switch off what a tokenizer file may carry along: the contract shortens, nobody pads."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
