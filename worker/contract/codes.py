"""Label codes: the one token per label that the adapter answers with."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from worker.contract.errors import ContractError
from worker.contract.tokens import Encode

_CANDIDATES = string.ascii_uppercase + string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class Code:
    """A label's answer: its text and the one token id that the text has."""

    text: str
    token_id: int


def choose_codes(labels: Sequence[str], suffix: str, encode_control: Encode) -> dict[str, Code]:
    """Choose a code for each label: letters and digits that are one token right after the prompt.

    Raises ContractError when the tokenizer has too few such characters for the label set.
    """
    suffix_ids = tuple(encode_control(suffix))
    by_token: dict[int, Code] = {}  # a tokenizer may map two characters to one token
    for text in _CANDIDATES:
        ids = tuple(encode_control(suffix + text))
        if ids[:-1] == suffix_ids and len(ids) == len(suffix_ids) + 1:
            by_token.setdefault(ids[-1], Code(text, ids[-1]))
    codes = list(by_token.values())
    if len(codes) < len(labels):
        raise ContractError(
            f"this tokenizer offers {len(codes)} one-token codes and there are {len(labels)} "
            "labels: train with decoding='choice' instead"
        )
    return dict(zip(labels, codes, strict=False))


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
