"""The labels with their messages in each part, and how unlike their sizes are."""

from __future__ import annotations

from trainer.check.finding import BALANCE, COUNTS, NAMES
from trainer.check.labels import FLOOR, HARD_FLOOR
from trainer.dataset.folder import SPLITS, TRAIN
from trainer.report import numbers
from trainer.report.bars import splits_chart
from trainer.report.dataset.facts import DatasetFacts
from trainer.report.records import Section


def labels_section(facts: DatasetFacts) -> Section:
    """Return every label's counts, the largest first, and the imbalance."""
    names = sorted(facts.labels, key=lambda name: (-facts.per_label(TRAIN).get(name, 0), name))
    splits = [(split, [facts.per_label(split).get(name, 0) for name in names]) for split in SPLITS]
    learnt = splits[0][1]
    surplus = facts.counts.get("surplus") or {}
    figures = facts.figures(COUNTS)
    floor = int(figures.get("floor", FLOOR))
    sublabels = {example.sublabel for example in facts.dataset.train} - {None}
    entropy = facts.figures(BALANCE).get("entropy")
    return Section(
        "sizes",
        "The labels",
        {
            "chart": splits_chart(names, splits),
            "columns": ("label", *SPLITS, *(("unused",) if surplus else ()), "of training"),
            "rows": [
                (
                    name,
                    *(numbers.count(values[at]) for _, values in splits),
                    *((numbers.count(surplus.get(name, 0)),) if surplus else ()),
                    numbers.percent(learnt[at] / max(1, sum(learnt))),
                )
                for at, name in enumerate(names)
            ],
            "few": [name for at, name in enumerate(names) if learnt[at] < floor],
            "too_few": [name for at, name in enumerate(names) if learnt[at] < HARD_FLOOR],
            "floor": floor,
            "hard_floor": HARD_FLOOR,
            "ratio": f"{max(learnt, default=0) / max(1, min(learnt, default=0)):.1f}",
            "largest": names[0],
            "smallest": names[-1],
            "entropy": numbers.decimal(entropy, 2),
            "sublabels": numbers.count(len(sublabels)) if sublabels else None,
            "alike": [tuple(pair) for pair in facts.figures(NAMES).get("alike", ())],
            "silent": list(facts.figures(NAMES).get("without_description", ())),
        },
    )
