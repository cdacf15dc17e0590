"""The accuracy page's contents as HTML, for whoever answers for the machine.

A fragment: the page around it, its style and the sign-in are the web application's. Everything that
is not from here is escaped; it has no style attribute and no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from desk.accuracy.chart import Point, over_time, percent, side_by_side
from desk.accuracy.estimate import Accuracy
from desk.accuracy.figures import RECENT_DAYS, Part
from desk.accuracy.service import AccuracyFigures

_MOST_CONFUSIONS = 10


def render_accuracy(figures: AccuracyFigures) -> str:
    """Return the sections of the page."""
    measured = figures.measured
    names = figures.adapter_names
    adapters = [
        (f"{names.get(part.name, '')} {part.name[:12]}".strip(), part) for part in measured.adapters
    ]
    labels = [(part.name, part) for part in sorted(measured.labels, key=lambda p: -p.results)]
    sections = [
        _headline(figures),
        _weeks(figures),
        _parts("By label", "The label that the machine gave.", labels),
        _parts("By adapter", "", adapters),
        _confusions(figures),
        _people(figures),
        _queue(figures),
    ]
    return "\n".join(section for section in sections if section)


def _headline(figures: AccuracyFigures) -> str:
    measured = figures.measured
    part = measured.recent
    if part.accuracy is None:
        return _section(
            "Accuracy",
            f"<p>Nothing of the audit sample of the last {RECENT_DAYS} days has been decided yet: "
            f"{part.drawn:,} messages were drawn.</p>",
        )
    told = part.accuracy
    body = (
        f'<p class="headline"><strong>{percent(told.value)}</strong> of all labels were right in '
        f"the last {RECENT_DAYS} days.</p>"
        f"<p>The true figure lies between {percent(told.low)} and {percent(told.high)} with 95 % "
        f"confidence. It stands on {told.verdicts:,} messages that people decided without seeing "
        f"the machine's label, of {part.drawn:,} drawn from {part.results:,}.</p>"
    )
    if told.corrected:
        body += (
            f"<p>People found {percent(told.observed)} right. What they were mistaken in "
            "themselves, as the messages that two of them decided show, has been taken out.</p>"
        )
    else:
        body += (
            "<p>No message was decided by two people: what reviewers were mistaken in themselves "
            "is counted as the machine's.</p>"
        )
    fallen = [fall.window_days for fall in measured.falls if fall.fell]
    if fallen:
        days = " and ".join(str(each) for each in fallen)
        body = (
            f'<p class="warning" role="status">The accuracy fell: the last {days} days are worse '
            f"than the 91 before these four weeks, and not by chance.</p>{body}"
        )
    return _section("Accuracy", body)


def _weeks(figures: AccuracyFigures) -> str:
    rows, points = [], []
    for week in figures.measured.weeks:
        begin = datetime.fromtimestamp(week.begin_ms / 1000, UTC)
        rows.append((begin.strftime("%Y-%m-%d"), *_cells(week.part)))
        if week.part.accuracy is not None:
            points.append(_point(f"{begin.day} {begin:%b}", week.part.accuracy))
    drawing = over_time("Accuracy by week, with 95 % intervals", points) if points else ""
    return _section("Week by week", drawing + _table(("Week from", *_HEAD), rows)) if rows else ""


def _parts(title: str, words: str, parts: Sequence[tuple[str, Part]]) -> str:
    points = [_point(name, part.accuracy) for name, part in parts if part.accuracy is not None]
    if not parts:
        return ""
    drawing = side_by_side(f"Accuracy {title.lower()}, with 95 % intervals", points)
    table = _table((title.removeprefix("By ").title(), *_HEAD), ((n, *_cells(p)) for n, p in parts))
    return _section(title, (f"<p>{escape(words)}</p>" if words else "") + drawing + table)


def _confusions(figures: AccuracyFigures) -> str:
    rows = [
        (each.machine, each.people or "no label fits", f"{each.audited:,}", f"{each.results:,.0f}")
        for each in figures.measured.confusions[:_MOST_CONFUSIONS]
    ]
    if not rows:
        return ""
    head = ("The machine said", "People said", "Audited", "Of all results, about")
    return _section("What is taken for what", _table(head, rows))


def _people(figures: AccuracyFigures) -> str:
    cost, mistakes, agreement = figures.cost, figures.measured.mistakes, figures.agreement
    rows = [("Hours of review a week", f"{cost.hours_a_week:.1f}")]
    for origin, hours in sorted(cost.hours.items()):
        made = cost.decisions[origin]
        seconds = f"{3600 * hours / made:.0f} s each" if made else ""
        rows.append((f"Decisions, {origin}, {cost.days} days", f"{made:,} ({seconds})"))
    if mistakes is not None:
        rows.append(("Mistakes of one reviewer alone", percent(mistakes.any.value)))
    if agreement.items:
        rows.append(("Messages that two people decided", f"{agreement.items:,}"))
        rows.append(("On which they agreed", percent(agreement.agreed / agreement.items)))
    if agreement.alpha is not None:
        rows.append(("Krippendorff's alpha", f"{agreement.alpha:.2f}"))
    return _section("People", _table(("", ""), rows))


def _queue(figures: AccuracyFigures) -> str:
    rows = [
        (
            f"{each.origin}, {each.state}",
            f"{each.items:,}",
            f"{each.oldest_s / 3600:,.1f} h",
            f"{each.over_a_day:,}",
            f"{each.over_a_week:,}",
        )
        for each in figures.waiting
    ]
    if not rows:
        return _section("What waits", "<p>Nothing waits.</p>")
    head = ("Queue", "Messages", "Oldest", "Over a day", "Over a week")
    return _section("What waits", _table(head, rows))


_HEAD = ("Accuracy", "95 % interval", "Audited", "Drawn", "Results")


def _cells(part: Part) -> tuple[str, ...]:
    told = part.accuracy
    counts = (f"{part.drawn:,}", f"{part.results:,}")
    if told is None:
        return ("–", "–", "0", *counts)
    limits = f"{percent(told.low)} to {percent(told.high)}"
    return (percent(told.value), limits, f"{told.verdicts:,}", *counts)


def _point(name: str, told: Accuracy) -> Point:
    return Point(name, told.value, told.low, told.high)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(word)}</th>' for word in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    start = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    table = f"<table>{start}<tbody>{lines}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'
