"""Label codes: the one token per label that the adapter answers with."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from worker.contract.errors import ContractError
from worker.contract.tokens import Encode, SingleTokens, no_tokens

_CANDIDATES = string.ascii_uppercase + string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class Code:
    """A label's answer: its text and the one token id that the text has."""

    text: str
    token_id: int


def choose_codes(
    labels: Sequence[str], suffix: str, encode_control: Encode, tokens: SingleTokens = no_tokens
) -> dict[str, Code]:
    """Choose a code for each label: what is one token right after the prompt.

    Letters and digits come first; where there are more labels than those, ``tokens`` offers
    others, in its order. Of them those serve that can be seen (printable, without a blank), and
    that the tokenizer reads as the same token in that place. Raises ContractError when the
    tokenizer has too few for the label set.
    """
    suffix_ids = tuple(encode_control(suffix))
    by_token: dict[int, Code] = {}  # a tokenizer may map two characters to one token
    for text, token_id in _candidates(tokens):
        ids = tuple(encode_control(suffix + text))
        if ids[:-1] != suffix_ids or len(ids) != len(suffix_ids) + 1:
            continue
        if token_id in {None, ids[-1]}:
            by_token.setdefault(ids[-1], Code(text, ids[-1]))
        if len(by_token) == len(labels):
            break
    if len(by_token) < len(labels):
        raise ContractError(
            f"this tokenizer offers {len(by_token)} one-token codes and there are {len(labels)} "
            "labels: merge labels, or take a base with a larger vocabulary"
        )
    return dict(zip(labels, by_token.values(), strict=True))


def _candidates(tokens: SingleTokens) -> Iterator[tuple[str, int | None]]:
    """Yield texts, and which token each should be where that is known. ``tokens`` is not asked
    before the letters and digits are used up: it may go through a whole vocabulary."""
    for text in _CANDIDATES:
        yield text, None
    for text, token_id in tokens():
        if text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text and not _has_blank(text):
            yield text, token_id


def _has_blank(text: str) -> bool:
    return not text or any(character.isspace() for character in text)


def check_codes(
    labels: Iterable[str], codes: Mapping[str, Code], suffix: str, encode_control: Encode
) -> str | None:
    """Return what is wrong with ``codes`` under this tokenizer, or None."""
    names = tuple(labels)
    if set(names) != set(codes):
        return f"codes for {sorted(codes)} but labels {sorted(names)}"
    ids = [code.token_id for code in codes.values()]
    if len(set(ids)) != len(ids):
        return "two labels share a code token"
    suffix_ids = tuple(encode_control(suffix))
    for name in names:
        code = codes[name]
        found = tuple(encode_control(suffix + code.text))
        if found != (*suffix_ids, code.token_id):
            return (
                f"label {name!r} has the code {code.text!r} as token {code.token_id}, "
                f"but this tokenizer reads it as {list(found[len(suffix_ids) :])}"
            )
    return None
