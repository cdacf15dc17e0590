"""How long the messages are, and what a token budget will cut of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import numbers
from trainer.check.finding import LENGTHS
from trainer.facts import Table
from trainer.report.bars import length_chart
from trainer.report.dataset.facts import DatasetFacts
from trainer.report.points import BAD, GOOD, UNKNOWN, WARN, Point
from trainer.report.records import Block, Section, Titled
from trainer.report.svg import Chart
from trainer.statistics.lengths import LengthBin, length_bins

_TONES = {"ok": GOOD, "warn": WARN, "fail": BAD}


def lengths_section(facts: DatasetFacts) -> Section:
    """Return the lengths in characters, and in tokens where the check was given a base."""
    examples = (*facts.dataset.train, *facts.dataset.validation)
    characters = [len(example.message) for example in examples]
    title = "How long the messages are"
    if not characters:
        return Section("lengths", title, missing="There are no messages to learn from.")
    charts = [
        length_chart(
            length_bins(characters),
            unit="characters",
            title="Characters a message",
            caption="Training and validation; the lengths of the bars' ends double every two bars.",
        )
    ]
    figures = facts.figures(LENGTHS)
    tokens = [LengthBin(*row) for row in figures.get("histogram", ())]
    if tokens:
        charts.insert(0, _tokens_chart(tokens, figures["budget"]))
    told = (
        "How many tokens they have is not known: clerk-trainer check --base counts them as "
        "training will."
    )
    if "p50" in figures:
        budget, cut = numbers.count(figures["budget"]), figures.get("shortened", 0)
        share = numbers.percent(figures.get("share_shortened"))
        told = f"Every message fits into the budget of {budget} tokens."
        if cut:
            told = (
                f"With a budget of {budget} tokens {numbers.counted(cut, 'message')} ({share}) "
                f"{'is' if cut == 1 else 'are'} shortened in the middle."
            )
    blocks: list[Block] = [
        f"{told} The hold-out's are not counted: it stays sealed.",
        charts,
        Table(("", "characters", "tokens"), _quantile_rows(characters, figures)),
    ]
    if per_label := _per_label(facts):
        blocks.append(Titled("Shortened, by label", Table(("label", "messages"), per_label)))
    return Section("lengths", title, blocks)


def tell_lengths(facts: DatasetFacts) -> Point:
    """Return whether a token budget cuts messages, for the short answer."""
    found = facts.finding(LENGTHS)
    if found is None or "p99" not in found.figures:
        return Point(
            UNKNOWN,
            "Not known how many messages a token budget cuts",
            "clerk-trainer check --base counts in the tokens of the base.",
        )
    figures = found.figures
    detail = (
        f"Half of them have {numbers.count(figures['p50'])} tokens or fewer, 99 of 100 "
        f"{numbers.count(figures['p99'])} or fewer."
    )
    budget = numbers.count(figures["budget"])
    if not figures["shortened"]:
        return Point(GOOD, f"Every message fits into {budget} tokens", detail)
    share = numbers.percent(figures["share_shortened"])
    return Point(_TONES.get(found.verdict, WARN), f"{share} are cut to {budget} tokens", detail)


def _tokens_chart(bins: Sequence[LengthBin], budget: int) -> Chart:
    return length_chart(
        bins,
        unit="tokens",
        title="Tokens a message",
        caption=(
            f"Training and validation, by the base's tokenizer. What is longer than "
            f"{numbers.count(budget)} tokens is shortened in the middle."
        ),
    )


def _quantile_rows(
    characters: Sequence[int], figures: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    ranked = sorted(characters)
    rows = []
    for name, share, key in (
        ("half of the messages, at most", 0.5, "p50"),
        ("95 of 100, at most", 0.95, "p95"),
        ("99 of 100, at most", 0.99, "p99"),
        ("the longest", 1.0, "max"),
    ):
        at = min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)
        rows.append((name, numbers.count(ranked[at]), numbers.count(figures.get(key))))
    return rows


def _per_label(facts: DatasetFacts) -> list[tuple[str, str]]:
    shortened = facts.figures(LENGTHS).get("shortened_per_label") or {}
    ranked = sorted(shortened.items(), key=lambda item: (-item[1], item[0]))
    return [(label, numbers.count(number)) for label, number in ranked]
