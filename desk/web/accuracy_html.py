"""The accuracy page's contents as HTML, for whoever answers for the machine.

A fragment: the page around it is a template. Everything that
is not from here is escaped; it has no style attribute and no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from markupsafe import Markup, escape

from desk.accuracy.chart import Point, over_time, percent, side_by_side
from desk.accuracy.estimate import Accuracy
from desk.accuracy.figures import RECENT_DAYS, Part
from desk.accuracy.service import AccuracyFigures
from desk.web.strings import t

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
        _parts("label", t("accuracy.labels"), labels),
        _parts("adapter", "", adapters),
        _confusions(figures),
        _people(figures),
        _queue(figures),
    ]
    return "\n".join(section for section in sections if section)


def _headline(figures: AccuracyFigures) -> str:
    measured = figures.measured
    part, title = measured.recent, t("accuracy.title")
    if part.accuracy is None:
        return _section(title, _p("accuracy.none", days=RECENT_DAYS, drawn=f"{part.drawn:,}"))
    told = part.accuracy
    share = Markup(f"<strong>{percent(told.value)}</strong>")  # noqa: S704 - a number
    body = f'<p class="headline">{_say("accuracy.right", share=share, days=RECENT_DAYS)}</p>'
    body += _p(
        "accuracy.interval",
        low=percent(told.low),
        high=percent(told.high),
        verdicts=f"{told.verdicts:,}",
        drawn=f"{part.drawn:,}",
        results=f"{part.results:,}",
    )
    if told.corrected:
        body += _p("accuracy.corrected", share=percent(told.observed))
    else:
        body += _p("accuracy.uncorrected")
    fallen = [fall.window_days for fall in measured.falls if fall.fell]
    if fallen:
        days = _say("accuracy.and").join(str(each) for each in fallen)
        warning = _say("accuracy.fell", days=days)
        body = f'<p class="warning" role="status">{warning}</p>{body}'
    return _section(title, body)


def _weeks(figures: AccuracyFigures) -> str:
    rows, points = [], []
    for week in figures.measured.weeks:
        begin = datetime.fromtimestamp(week.begin_ms / 1000, UTC)
        rows.append((begin.strftime("%Y-%m-%d"), *_cells(week.part)))
        if week.part.accuracy is not None:
            points.append(_point(f"{begin.day} {begin:%b}", week.part.accuracy))
    if not rows:
        return ""
    drawing = over_time(t("accuracy.weeks.drawing"), points) if points else _nothing()
    return _section(
        t("accuracy.weeks"), drawing + _table((t("accuracy.week_from"), *_head()), rows)
    )


def _parts(kind: str, words: str, parts: Sequence[tuple[str, Part]]) -> str:
    if not parts:
        return ""
    points = [_point(name, part.accuracy) for name, part in parts if part.accuracy is not None]
    drawing = side_by_side(t(f"accuracy.{kind}.drawing"), points) if points else _nothing()
    rows = ((name, *_cells(part)) for name, part in parts)
    table = _table((t(f"accuracy.{kind}"), *_head()), rows)
    body = (f"<p>{escape(words)}</p>" if words else "") + drawing + table
    return _section(t(f"accuracy.by_{kind}"), body)


def _confusions(figures: AccuracyFigures) -> str:
    rows = [
        (
            each.machine,
            each.people or t("task.no_label"),
            f"{each.audited:,}",
            f"{each.results:,.0f}",
        )
        for each in figures.measured.confusions[:_MOST_CONFUSIONS]
    ]
    if not rows:
        return ""
    names = ("machine_said", "people_said", "audited", "of_all")
    head = [t(f"accuracy.{name}") for name in names]
    return _section(t("accuracy.confusions"), _table(head, rows))


def _people(figures: AccuracyFigures) -> str:
    cost, mistakes, agreement = figures.cost, figures.measured.mistakes, figures.agreement
    rows = [(t("accuracy.hours"), f"{cost.hours_a_week:.1f}")]
    for origin, hours in sorted(cost.hours.items()):
        made = cost.decisions[origin]
        pace = t("accuracy.pace", seconds=f"{3600 * hours / made:.0f}") if made else ""
        what = t("accuracy.decisions", origin=t(f"origin.{origin}"), days=cost.days)
        rows.append((what, f"{made:,} {pace}".strip()))
    if mistakes is not None:
        rows.append((t("accuracy.mistakes"), percent(mistakes.any.value)))
    if agreement.items:
        rows.append((t("accuracy.doubled"), f"{agreement.items:,}"))
        rows.append((t("accuracy.agreed"), percent(agreement.agreed / agreement.items)))
    if agreement.alpha is not None:
        rows.append((t("accuracy.alpha"), f"{agreement.alpha:.2f}"))
    return _section(t("accuracy.people"), _table(("", ""), rows))


def _queue(figures: AccuracyFigures) -> str:
    rows = [
        (
            f"{t(f'origin.{each.origin}')}, {t(f'state.{each.state}')}",
            f"{each.items:,}",
            t("accuracy.age", hours=f"{each.oldest_s / 3600:,.1f}"),
            f"{each.over_a_day:,}",
            f"{each.over_a_week:,}",
        )
        for each in figures.waiting
    ]
    if not rows:
        return _section(t("accuracy.waiting"), _p("queues.none"))
    names = ("queue", "messages", "oldest", "over_a_day", "over_a_week")
    head = [t(f"accuracy.{name}") for name in names]
    return _section(t("accuracy.waiting"), _table(head, rows))


def _head() -> Sequence[str]:
    names = ("share", "limits", "audited", "drawn", "results")
    return [t(f"accuracy.{name}") for name in names]


def _cells(part: Part) -> tuple[str, ...]:
    told = part.accuracy
    counts = (f"{part.drawn:,}", f"{part.results:,}")
    if told is None:
        return ("–", "–", "0", *counts)
    limits = t("accuracy.from_to", low=percent(told.low), high=percent(told.high))
    return (percent(told.value), limits, f"{told.verdicts:,}", *counts)


def _point(name: str, told: Accuracy) -> Point:
    return Point(name, told.value, told.low, told.high)


def _say(key: str, **values: object) -> Markup:
    """Return words of the catalogue, escaped; a value that is markup stays so."""
    return escape(t(key)).format(**values)


def _p(key: str, **values: object) -> str:
    return f"<p>{_say(key, **values)}</p>"


def _nothing() -> str:
    return f'<p class="meta">{_say("accuracy.nothing_decided")}</p>'


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
