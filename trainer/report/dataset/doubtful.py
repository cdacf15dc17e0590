"""Labels that are probably wrong: how many, of which labels, taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.check.finding import SUBLABELS, SUSPECTS
from trainer.report import numbers
from trainer.report.bars import bar
from trainer.report.dataset.facts import DatasetFacts, suspects
from trainer.report.records import Input, Section, lacking
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
    expected = figures.get("expected_wrong")
    return Section(
        "doubtful",
        title,
        {
            "found": found.found,
            "queue": facts.check.queue,
            "waiting": numbers.counted(facts.check.suspects, "row"),
            "kept": facts.check.decisions_kept,
            "slips": expected and numbers.percent(expected["slips"]),
            "interval": expected and numbers.interval(expected["slips_interval_95"]),
            "at_most": expected and numbers.percent(expected["at_most"]),
            "agreement": numbers.percent(figures.get("agreement")),
            "detector": figures.get("detector", ""),
            "vouched": figures.get("vouched", 0),
            "not_judged": figures.get("not_judged", 0),
            "labels": _by_label(figures.get("per_label") or {}),
            "pairs": _pairs(figures.get("moves") or ()),
            "suspects": [_suspect(facts, suspect) for suspect in suspects(facts)],
            "at_once": AT_ONCE,
            "with_texts": facts.texts is not None,
            "misplaced": [
                (
                    found["sublabel"],
                    found["label"],
                    found["reads_like"],
                    numbers.count(found["examples"]),
                    numbers.percent(found["other"], 0),
                )
                for found in facts.figures(SUBLABELS).get("misplaced", ())
            ],
        },
    )


def _by_label(per_label: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return the labels with a doubted row, the most doubted first."""
    ranked = sorted(per_label.items(), key=lambda item: (-item[1]["share"], item[0]))
    most = max((found["share"] for _, found in ranked), default=0) or 1
    return [
        {
            "label": label,
            "suspects": numbers.count(found["suspects"]),
            "share": numbers.percent(found["share"]),
            "bar": bar(found["share"] / most, "s2"),
        }
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
    similar = [str(id_) for id_ in suspect.get("similar") or ()]
    return {
        "id": readable(str(suspect["id"])),
        "label": suspect["label"],
        "suggested": suspect["suggested_label"],
        "confidence": numbers.sureness(suspect["confidence"]),
        "bar": bar(suspect["confidence"], "s2"),
        "text": show_text(facts.texts, suspect["id"]),
        "similar": [
            (readable(id_), show_text(facts.texts, id_))
            for id_ in (similar if facts.texts is not None else ())
        ],
    }
