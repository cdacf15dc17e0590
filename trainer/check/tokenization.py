"""The dataset under the base's own tokenizer: lengths against the budget, and label codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.check.finding import Finding, grade
from trainer.dataset.examples import Example
from worker.contract import ContractError, PromptSpec, Taxonomy, build_prompt
from worker.contract.tokens import Encode

LENGTHS, CODES = "message lengths", "label codes"
_SHORTENED_WARN, _SHORTENED_FAIL = 0.01, 0.25
_LISTED = 20


def check_base(
    examples: Sequence[Example],
    taxonomy: Taxonomy,
    base: Path | None,
    *,
    max_message_tokens: int,
    redaction: str | None,
) -> list[Finding]:
    """Return the findings on lengths and on codes, both skipped without a base.

    The prompt is made by the code that makes it for training. Raises BadInput when the directory
    is no base.
    """
    if base is None:
        advice = "Give --base DIR to check against the tokenizer that you will train with."
        return [Finding(name, "skipped", "no base given", advice) for name in (LENGTHS, CODES)]
    from trainer.model.lora_model import load_renderer
    from trainer.model.prompt import load_tokenizer, make_prompt

    tokenizer = load_tokenizer(base)
    try:
        spec, codes = make_prompt(
            taxonomy,
            tokenizer.encoders,
            load_renderer(base),
            instruction="File the message.",
            list_labels=False,
            descriptions=False,
            max_message_tokens=max_message_tokens,
            prefix_block=None,
            redaction=redaction,
        )
    except ContractError as error:
        advice = "Use fewer labels, or a base whose tokenizer has more one-character tokens."
        return [
            Finding(LENGTHS, "skipped", "no prompt can be made: see the codes"),
            Finding(CODES, "fail", str(error), advice),
        ]
    found = f"each of {len(codes)} labels has a code that is one token of this tokenizer"
    figures = {"codes": {name: [code.text, code.token_id] for name, code in codes.items()}}
    return [
        check_lengths(examples, spec, tokenizer.encoders.plain),
        Finding(CODES, "ok", found, "", figures),
    ]


def check_lengths(examples: Sequence[Example], spec: PromptSpec, encode: Encode) -> Finding:
    """Tokenize every message as training will: more than one in a hundred shortened warns, more
    than a quarter fails, and so does an empty message."""
    fixed = len(spec.prefix_ids) + len(spec.suffix_ids)
    lengths, shortened, empty = [], [], []
    for example in examples:
        prompt = build_prompt(spec, example.message, encode)
        if prompt is None:
            empty.append(example.id)
            continue
        lengths.append(len(prompt.ids) - fixed)
        if prompt.truncated:
            shortened.append(example.id)
    share = len(shortened) / max(1, len(examples))
    quantiles = np.quantile(lengths or [0], (0.5, 0.95, 0.99, 1), method="higher").astype(int)
    p50, p95, p99, longest = map(int, quantiles)
    figures = {
        "budget": spec.max_message_tokens,
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "max": longest,
        "shortened": len(shortened),
        "share_shortened": round(share, 4),
        "shortened_ids": shortened[:_LISTED],
        "empty_ids": empty[:_LISTED],
    }
    verdict = "fail" if empty else grade(share, warn=_SHORTENED_WARN, fail=_SHORTENED_FAIL)
    found = (
        f"half of the messages have {p50} tokens or fewer, 99 of 100 {p99} or fewer; "
        f"{share:.1%} are shortened to {spec.max_message_tokens}"
    )
    advice = ""
    if empty:
        advice = f"{len(empty)} messages are empty once cleaned: prepare the dataset again."
    elif verdict != "ok":
        advice = (
            "Raise max_message_tokens, or strip quotations and signatures (prepare): a shortened "
            "message may have lost what it is about."
        )
    return Finding(LENGTHS, verdict, found, advice, figures)
