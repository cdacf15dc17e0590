"""Labels that are probably wrong: how many, of which labels, taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import numbers
from trainer.check.finding import SUBLABELS, SUSPECTS
from trainer.facts import Table
from trainer.report.bars import bar
from trainer.report.dataset.facts import DatasetFacts, suspects
from trainer.report.records import Block, Drawn, Input, Section, Titled, lacking, small
from trainer.report.texts import readable, show_text

MOST_MOVES = 12
AT_ONCE = 12


def doubtful_section(facts: DatasetFacts) -> Section:
    """Return the doubted labels: their number and expected share, by label, by pair, by name."""
    title = "Labels that are probably wrong"
    if facts.check is None:
        return lacking("doubtful", title, Input.CHECK, "the dataset folder")
    found = facts.finding(SUSPECTS)
    if found is None or found.verdict == "skipped":
        return Section("doubtful", title, missing=f"{found.found if found else 'Not judged'}.")
    figures = found.figures
    waiting = numbers.counted(facts.check.suspects, "row")
    kept = facts.check.decisions_kept
    told = f"{found.found}. {waiting} wait in {facts.check.queue} for a person"
    told += f"; {numbers.count(kept)} of an earlier queue are decided." if kept else "."
    blocks: list[Block] = [told]
    if expected := figures.get("expected_wrong"):
        blocks.append(
            f"Of all labels in training and validation {numbers.percent(expected['slips'])} "
            f"({numbers.interval(expected['slips_interval_95'])}) are probably slips, which have "
            "nothing to do with the text. With mistakes between labels that are alike it may be "
            f"more: at most {numbers.percent(expected['at_most'])}, the share on which the models "
            "say another label. The queue holds both kinds, and messages that are merely hard."
        )
    judged = (
        "Each message was judged by models that learnt neither it nor a near-copy: "
        f"{figures.get('detector', '')}. They agree with "
        f"{numbers.percent(figures.get('agreement'))} of the labels."
    )
    if vouched := figures.get("vouched"):
        judged += f" {vouched} labels that a person decided on are not doubted again."
    if not_judged := figures.get("not_judged"):
        judged += f" {not_judged} could not be judged: their label has no other messages."
    blocks.append(small(judged))
    if labels := _by_label(figures.get("per_label") or {}):
        table = Table(("label", "", "doubted", "share of it"), labels, words=2)
        blocks.append(Titled("By label", table))
    if pairs := _pairs(figures.get("moves") or ()):
        blocks.append(
            Titled("Which labels are taken for which", Drawn("doubtful", {"pairs": pairs}))
        )
    if rows := [_suspect(facts, suspect) for suspect in suspects(facts)]:
        left_out = "" if facts.texts is not None else "; the texts are left out here"
        blocks.append(Titled("The surest", f"As the queue has them{left_out}."))
        blocks.append(Drawn("mistakes", {"rows": rows, "at_once": AT_ONCE}))
    if misplaced := facts.figures(SUBLABELS).get("misplaced"):
        blocks.append(Titled("Finer labels that read like another label", _misplaced(misplaced)))
    return Section("doubtful", title, blocks)


def _misplaced(found: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        ("finer label", "under", "reads like", "messages", "probability"),
        [
            (
                each["sublabel"],
                each["label"],
                each["reads_like"],
                numbers.count(each["examples"]),
                numbers.percent(each["other"], 0),
            )
            for each in found
        ],
        words=3,
    )


def _by_label(per_label: Mapping[str, Mapping[str, float]]) -> list[tuple[Any, ...]]:
    """Return the labels with a doubted row, the most doubted first."""
    ranked = sorted(per_label.items(), key=lambda item: (-item[1]["share"], item[0]))
    most = max((found["share"] for _, found in ranked), default=0) or 1
    return [
        (
            label,
            bar((found["share"] / most, "s2")),
            numbers.count(found["suspects"]),
            numbers.percent(found["share"]),
        )
        for label, found in ranked
        if found["suspects"]
    ]


def _pairs(moves: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the pairs of labels, each with the doubted rows either way, the most first."""
    counts = {(label, suggested): int(count) for label, suggested, count in moves}
    totals: Counter[tuple[str, str]] = Counter()
    for (label, suggested), count in counts.items():
        first, second = sorted((label, suggested))
        totals[first, second] += count
    found = []
    for (first, second), _ in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        forth, back = counts.get((first, second), 0), counts.get((second, first), 0)
        label, other = (first, second) if forth >= back else (second, first)
        found.append(
            {
                "label": label,
                "other": other,
                "forth": numbers.count(max(forth, back)),
                "back": numbers.count(min(forth, back)),
                "both": 3 * min(forth, back) >= forth + back,
            }
        )
    return found[:MOST_MOVES]


def _suspect(facts: DatasetFacts, suspect: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": readable(str(suspect["id"])),
        "label": suspect["label"],
        "predicted": suspect["suggested_label"],
        "confidence": numbers.sureness(suspect["confidence"]),
        "bar": bar((suspect["confidence"], "s2")),
        "review": False,
        "text": show_text(facts.texts, suspect["id"]),
    }
