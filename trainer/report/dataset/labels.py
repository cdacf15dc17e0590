"""The labels with their messages in each part, and how unlike their sizes are."""

from __future__ import annotations

from collections.abc import Iterator

from trainer import numbers
from trainer.check.finding import BALANCE, COUNTS, NAMES
from trainer.check.labels import FLOOR, HARD_FLOOR
from trainer.dataset.folder import SPLITS, TRAIN
from trainer.facts import Table
from trainer.report.bars import STYLE_OF_SPLIT, bar
from trainer.report.dataset.facts import DatasetFacts
from trainer.report.records import Block, Section, Titled, small


def labels_section(facts: DatasetFacts) -> Section:
    """Return every label's counts, the largest first, and the imbalance."""
    names = sorted(facts.labels, key=lambda name: (-facts.per_label(TRAIN).get(name, 0), name))
    sizes = {name: [facts.per_label(split).get(name, 0) for split in SPLITS] for name in names}
    learnt = {name: counts[0] for name, counts in sizes.items()}
    surplus = facts.counts.get("surplus") or {}
    largest = max(map(sum, sizes.values())) or 1
    rows = [
        (
            name,
            bar(*((count / largest, s) for count, s in zip(counts, STYLE_OF_SPLIT, strict=True))),
            *map(numbers.count, counts),
            *((numbers.count(surplus.get(name, 0)),) if surplus else ()),
            numbers.percent(learnt[name] / max(1, sum(learnt.values()))),
        )
        for name, counts in sizes.items()
    ]
    columns = ("label", "", *SPLITS, *(("unused",) if surplus else ()), "of training")
    blocks: list[Block] = [" ".join(_sentences(facts, learnt)), Table(columns, rows, words=2)]
    if alike := facts.figures(NAMES).get("alike"):
        pairs = [tuple(pair) for pair in alike]
        table = Table(("label", "and", "because"), pairs, words=3)
        blocks.append(Titled("Names that annotators may mix up", table))
    if silent := facts.figures(NAMES).get("without_description"):
        blocks.append(small(f"Without a description in the taxonomy: {', '.join(silent)}."))
    return Section("sizes", "The labels", blocks)


def _sentences(facts: DatasetFacts, learnt: dict[str, int]) -> Iterator[str]:
    largest, *_, smallest = learnt if len(learnt) > 1 else (*learnt, *learnt)
    ratio = learnt[largest] / max(1, learnt[smallest])
    entropy = facts.figures(BALANCE).get("entropy")
    even = (
        ""
        if entropy is None
        else (f"; the evenness of the labels is {numbers.decimal(entropy, 2)} (1: all of one size)")
    )
    yield (
        f"The largest, {largest}, has {ratio:.1f} times the messages of the smallest, "
        f"{smallest}{even}."
    )
    floor = int(facts.figures(COUNTS).get("floor", FLOOR))
    if too_few := [name for name, count in learnt.items() if count < HARD_FLOOR]:
        few = ", ".join(too_few)
        yield f"Nothing can be learnt of {few}: fewer than {HARD_FLOOR} messages."
    if few := ", ".join(name for name, count in learnt.items() if count < floor):
        yield f"Below {floor} messages to learn from: {few}."
    if sublabels := {example.sublabel for example in facts.dataset.train} - {None}:
        yield f"There are {numbers.count(len(sublabels))} finer labels."
