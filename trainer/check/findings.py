"""The findings of ``check`` and their file, and the checks of counts, balance, names, lengths and
codes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from trainer.artifacts.files import Record, RecordFile
from trainer.dataset.folder import Example
from trainer.languages import TAKE_ANOTHER, foreign_languages, language_shares
from trainer.model.base_card import find_languages
from worker.contract import ContractError, Label, PromptSpec, Taxonomy, build_prompt
from worker.contract.prompt import Encode

Verdict = Literal["ok", "warn", "fail", "skipped"]

COUNTS = "examples per label"
BALANCE = "balance"
HOLDOUT_SIZE = "hold-out size"
NAMES = "label names"
LENGTHS = "message lengths"
LANGUAGES = "languages"
CODES = "label codes"
CONFLICTS = "label conflicts"
LEAKAGE = "leakage between splits"
SUSPECTS = "suspected wrong labels"
SUBLABELS = "sublabels"
"""The findings' names."""

_ORDER: tuple[Verdict, ...] = ("skipped", "ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's verdict in words (``found``), what to do about it (``advice``, may be empty), and
    ``figures`` (JSON), which name messages by id and hold no text."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


class CheckedDataset(Record):
    """The dataset that was checked."""

    name: str
    digest: str


class CheckRecord(Record):
    """``check.json``: figures and ids, no message texts. ``suspects`` counts the suspected labels,
    ``queue`` is the review queue's name, ``decisions_kept`` counts earlier decisions in it.
    ``options`` are the command's own, as given."""

    schema_id: Literal["check/2"] = Field("check/2", alias="schema")
    dataset: CheckedDataset
    verdict: Verdict
    verdicts: dict[str, Verdict]
    suspects: int
    findings: tuple[Finding, ...]
    settings: dict[str, Any]
    queue: str
    decisions_kept: int
    options: tuple[str, ...] = ()

    @property
    def doubtful(self) -> int:
        """The number of suspected labels, if that is more than a few and more than models' own
        mistakes."""
        return self.suspects if self.verdicts[SUSPECTS] in {"warn", "fail"} else 0


CHECK = RecordFile("check.json", CheckRecord, "clerk-trainer check")


def worst(findings: Sequence[Finding]) -> Verdict:
    """Return the worst verdict; skipped checks count as ok."""
    return max(("ok", *(finding.verdict for finding in findings)), key=_ORDER.index)


def grade(value: float, *, warn: float, fail: float) -> Verdict:
    """Return the verdict on a value for which less is better."""
    return "fail" if value > fail else "warn" if value > warn else "ok"


FLOOR = 200
"""Examples a label below which ``check`` warns. On bank messages, 200 clean examples a label are as
good as all of them with a tenth wrong (docs/figures.md)."""

HARD_FLOOR = 20
_HOLDOUT_FLOOR = 30
_IMBALANCE = 10.0

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ALIKE = 0.85


def check_counts(examples: Sequence[Example], taxonomy: Taxonomy, floor: int) -> Finding:
    """Count training and validation examples: a label with fewer than 20 fails, one with fewer
    than ``floor`` warns."""
    counts = Counter(example.label for example in examples)
    per_label = {name: counts[name] for name in taxonomy.names}
    few = [name for name, n in per_label.items() if n < floor]
    too_few = [name for name, n in per_label.items() if n < HARD_FLOOR]
    least = min(per_label, key=lambda name: per_label[name])
    found = f"{len(examples):,} examples, at least {per_label[least]:,} a label ({least})"
    advice = f"Label more messages for {_list(few)}: fewer than {floor} examples." if few else ""
    if too_few:
        advice = (
            f"Label at least {HARD_FLOOR}, better {floor}, messages for {_list(too_few)}, or drop "
            "the label from the taxonomy: nothing can be learnt from so few."
        )
    verdict: Verdict = "fail" if too_few else "warn" if few else "ok"
    return Finding(COUNTS, verdict, found, advice, {"floor": floor})


def check_balance(examples: Sequence[Example], taxonomy: Taxonomy) -> Finding:
    """Compare the largest label with the smallest; the entropy is 1 where all are equal."""
    counts = Counter(example.label for example in examples)
    sizes = [counts[name] for name in taxonomy.names]
    ratio = max(sizes) / max(1, min(sizes))
    shares = [size / max(1, sum(sizes)) for size in sizes if size]
    entropy = -sum(share * math.log(share) for share in shares) / math.log(len(sizes))
    figures = {"entropy": round(entropy, 4)}
    found = f"the largest label has {ratio:.1f} times the examples of the smallest"
    advice = "Cap the large labels (prepare --per-label) or label more of the small ones."
    return _warn(BALANCE, found, advice if ratio > _IMBALANCE else "", figures)


def _warn(name: str, found: str, advice: str, figures: Mapping[str, Any] | None = None) -> Finding:
    """Return a warning if there is advice."""
    return Finding(name, "warn" if advice else "ok", found, advice, figures or {})


def check_holdout_size(per_label: Mapping[str, int]) -> Finding:
    """Warn if the hold-out has too few messages of a label to measure it."""
    total = sum(per_label.values())
    few = [name for name, n in per_label.items() if n < _HOLDOUT_FLOOR]
    # Half the width of a 95 % interval around an accuracy of 90 %.
    margin = 1.96 * math.sqrt(0.09 / max(1, total))
    found = (
        f"{total:,} messages: an accuracy of 90 % would be known to ±{margin:.1%}, if they are "
        "independent"
    )
    advice = (
        f"Fewer than {_HOLDOUT_FLOOR} messages of {_list(few)}: their own figures will be guesses. "
        "Hold out more (prepare --holdout-share)."
    )
    return _warn(HOLDOUT_SIZE, found, advice if few else "")


def check_languages(counts: Mapping[str, int], base: Path | None) -> Finding:
    """Warn of languages that the base does not know; without a base they are only named."""
    strange = foreign_languages(counts, find_languages(base)) if base else ""
    advice = f"The base does not know {strange}: {TAKE_ANOTHER}." if strange else ""
    if not counts:
        return Finding(LANGUAGES, "skipped", "the dataset does not have them: prepare it again")
    return _warn(LANGUAGES, language_shares(counts), advice, {"languages": dict(counts)})


def check_names(taxonomy: Taxonomy) -> Finding:
    """Warn of names with the same words (in any order, case or number) or nearly the same letters,
    of equal descriptions, and of labels without a description."""
    alike = [
        (left.name, right.name, why)
        for left, right in combinations(taxonomy.labels, 2)
        if (why := _why_alike(left, right))
    ]
    silent = [label.name for label in taxonomy.labels if not label.description.strip()]
    figures = {"alike": [list(pair) for pair in alike], "without_description": silent}
    found = f"{len(alike)} pairs of names alike, {len(silent)} labels without a description"
    advice = []
    if alike:
        pairs = "; ".join(f"{left} and {right} ({why})" for left, right, why in alike[:3])
        advice.append(f"Rename or merge labels that annotators will mix up: {pairs}.")
    if silent:
        advice.append(f"Describe in a sentence what belongs under {', '.join(silent[:5])}.")
    return _warn(NAMES, found, " ".join(advice), figures)


def _why_alike(left: Label, right: Label) -> str:
    words = _words(left.name), _words(right.name)
    letters = _ratio("".join(sorted(words[0])), "".join(sorted(words[1])))
    spelled = _ratio(left.name.casefold(), right.name.casefold())
    if words[0] == words[1]:
        return "the same words"
    if max(letters, spelled) >= _ALIKE:
        return "nearly the same letters"
    if left.description and left.description == right.description:
        return "the same description"
    return ""


def _ratio(left: str, right: str) -> float:
    return SequenceMatcher(None, left, right).ratio()


def _words(name: str) -> frozenset[str]:
    parts = _WORD.findall(_CAMEL.sub(" ", name).casefold())
    # "refund" and "refunds" would be mixed up by annotators.
    return frozenset(part.removesuffix("s") for part in parts)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


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
    """Return the findings on lengths and codes, both skipped without a base. Raises BadInput if the
    directory is not a base model's."""
    if base is None:
        advice = "Give --base DIR to check with the tokenizer of the base you will train."
        return [Finding(name, "skipped", "no base given", advice) for name in (LENGTHS, CODES)]
    from trainer.model.prompt import load_renderer, load_tokenizer, make_prompt

    tokenizer = load_tokenizer(base)
    try:
        # Any instruction will do: codes depend on the text after the message only, and lengths on
        # the message.
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
        advice = "Merge labels, or take a base with a larger vocabulary."
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
    """Tokenize every message as in training. Warn if more than 1 % are shortened; fail if more than
    25 % are, or if one is empty."""
    fixed = len(spec.prefix_ids) + len(spec.suffix_ids)
    lengths: list[int] = []
    shortened, empty = [], []
    for example in examples:
        prompt = build_prompt(spec, example.message, encode)
        if prompt is None:
            empty.append(example.id)
            continue
        if prompt.truncated:
            shortened.append(example)
        lengths.append(len(prompt.ids) - fixed)
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
        "shortened_ids": [example.id for example in shortened[:_LISTED]],
        "shortened_per_label": dict(Counter(example.label for example in shortened)),
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
