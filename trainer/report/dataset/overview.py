"""The short answer about a dataset: what is in it, and what to know before it is trained on."""

from __future__ import annotations

from collections.abc import Iterator

from trainer import numbers
from trainer.check.finding import COUNTS, LEAKAGE, SUSPECTS
from trainer.check.labels import FLOOR
from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION
from trainer.report.bars import STYLE_OF_SPLIT, bar
from trainer.report.dataset.facts import DatasetFacts
from trainer.report.dataset.lengths import tell_lengths
from trainer.report.dataset.power import tell_holdout
from trainer.report.points import BAD, GOOD, MANY_OPENINGS, UNKNOWN, WARN, Point, tell_openings
from trainer.report.records import Drawn, Section

_TONES = {"ok": GOOD, "warn": WARN, "fail": BAD, "skipped": UNKNOWN}


def overview_section(facts: DatasetFacts) -> Section:
    """Return the headline and the points in plain words."""
    sizes = [(name, facts.size(name)) for name in (TRAIN, VALIDATION, HOLDOUT)]
    whole = sum(size for _, size in sizes) or 1
    card = {
        "big": numbers.count(facts.size(TRAIN)),
        "under": f"messages to learn {len(facts.labels)} labels from",
        "interval": f"of {numbers.count(whole)} in all",
        "ladder": [
            {
                "name": name,
                "value": numbers.count(size),
                "about": numbers.percent(size / whole),
                "bar": bar((size / whole, style)),
            }
            for (name, size), style in zip(sizes, STYLE_OF_SPLIT, strict=True)
        ],
        "points": list(_points(facts)),
    }
    return Section("found", "In short", [Drawn("card", card)])


def _points(facts: DatasetFacts) -> Iterator[Point]:
    yield _checked(facts)
    yield from _used(facts)
    yield _labels(facts)
    yield from _wrong(facts)
    yield from _apart(facts)
    yield tell_lengths(facts)
    yield tell_holdout(facts)
    yield _opened(facts)
    yield _redacted(facts)


def _checked(facts: DatasetFacts) -> Point:
    if facts.check is None:
        return Point(
            UNKNOWN, "Not checked yet", "clerk-trainer check looks for wrong labels and leaks."
        )
    concerns = [f.name for f in facts.check.findings if f.verdict in {"warn", "fail"}]
    if facts.check.verdict == "fail":
        failed = [f.name for f in facts.check.findings if f.verdict == "fail"]
        return Point(BAD, "It failed its check", f"{', '.join(failed)}: see what to do next.")
    if concerns:
        return Point(WARN, "Its check has concerns", f"{', '.join(concerns)}.")
    number = numbers.counted(len(facts.check.findings), "check")
    return Point(GOOD, "It passed its check", f"{number}, nothing to do.")


def _used(facts: DatasetFacts) -> Iterator[Point]:
    read = facts.counts.get("rows_read")
    if not read:
        return
    used = sum(facts.size(name) for name in (TRAIN, VALIDATION, HOLDOUT))
    left = read - used
    claim = f"{numbers.count(used)} of {numbers.count(read)} rows are in use"
    detail = (
        f"{numbers.counted(left, 'row')} ({numbers.percent(left / read)}) left out, each for a "
        "reason that is listed below."
        if left
        else "None was left out."
    )
    yield Point(WARN if left > 0.2 * read else GOOD, claim, detail)


def _labels(facts: DatasetFacts) -> Point:
    sizes = facts.per_label(TRAIN)
    floor = int(facts.figures(COUNTS).get("floor", FLOOR))
    least = min(facts.labels, key=lambda name: (sizes.get(name, 0), name))
    most = max(facts.labels, key=lambda name: (sizes.get(name, 0), name))
    few = sum(sizes.get(name, 0) < floor for name in facts.labels)
    ratio = sizes.get(most, 0) / max(1, sizes.get(least, 0))
    claim = (
        f"{few} of {len(facts.labels)} labels have fewer than {floor} messages to learn from"
        if few
        else f"Every label has {floor} messages to learn from, or more"
    )
    detail = (
        f"The fewest: {least}, {numbers.count(sizes.get(least, 0))}. The largest label has "
        f"{ratio:.1f} times as many."
    )
    return Point(WARN if few else GOOD, claim, detail)


def _wrong(facts: DatasetFacts) -> Iterator[Point]:
    found = facts.finding(SUSPECTS)
    if found is None or found.verdict == "skipped":
        return
    expected = found.figures.get("expected_wrong")
    detail = f"{found.found}, and wait in the review queue."
    if expected is None:
        yield Point(_TONES[found.verdict], "Some labels are doubted", detail)
        return
    slips, most = numbers.percent(expected["slips"]), numbers.percent(expected["at_most"])
    waiting = numbers.counted(found.figures["suspects"], "label")
    detail = (
        f"Slips: {numbers.interval(expected['slips_interval_95'])} (95%). {waiting} wait in the "
        "review queue."
    )
    claim = f"{slips} of the labels are probably slips; at most {most} are wrong"
    yield Point(_TONES[found.verdict], claim, detail)


def _apart(facts: DatasetFacts) -> Iterator[Point]:
    found = facts.finding(LEAKAGE)
    if found is None:
        return
    if found.verdict == "ok":
        yield Point(GOOD, "No message is, or is nearly, in two parts", f"{found.found}.")
    else:
        yield Point(_TONES[found.verdict], "Some messages are in two parts", f"{found.found}.")


def _opened(facts: DatasetFacts) -> Point:
    detail = "Making this page opened nothing: it knows the hold-out's counts, and no text of it."
    tone = WARN if facts.openings > MANY_OPENINGS else GOOD
    return Point(tone, tell_openings(facts.openings), detail)


def _redacted(facts: DatasetFacts) -> Point:
    rules = facts.dataset.redaction
    if rules is None:
        return Point(
            UNKNOWN,
            "Personal data is not redacted",
            "Whoever reads the dataset reads names, addresses and numbers that customers wrote.",
        )
    kinds = facts.counts.get("redacted") or {}
    listed = ", ".join(f"{numbers.count(n)} {kind}" for kind, n in kinds.items())
    return Point(GOOD, f"Personal data is redacted by {rules}", f"{listed or 'None found'}.")
