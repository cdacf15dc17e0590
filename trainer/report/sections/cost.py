"""What the adapter costs, beside a hosted model."""

from __future__ import annotations

import math

from trainer.artifacts.cost import CostInput, CostRecord
from trainer.report import numbers
from trainer.report.charts.lines import Line, Mark, line_chart
from trainer.report.charts.svg import Chart
from trainer.report.numbers import written
from trainer.report.page import Section, lacking
from trainer.report.records import Input, Run

_DAYS_PER_MONTH = 365.25 / 12
_LEAST_MONTHS, _MOST_MONTHS = 12, 60


def cost_section(run: Run) -> Section:
    """Return when the adapter has paid for itself, the bill by volume, and every input."""
    title = "What it costs"
    if run.cost is None:
        return lacking("cost", title, Input.COST)
    found, planned = run.cost, run.cost.planned
    return Section(
        "cost",
        title,
        {
            "currency": found.currency,
            "one_off": numbers.money(found.one_off),
            "training": numbers.money(found.training),
            "labelling": numbers.money(found.labelling),
            "own": numbers.money(found.per_thousand_messages, 4),
            "hosted": numbers.money(found.hosted_per_thousand, 4),
            "volume": numbers.count(planned.messages_per_month),
            "serving_month": numbers.money(planned.serving),
            "hosted_month": numbers.money(planned.hosted),
            "days": None if planned.break_even_days is None else _days(planned.break_even_days),
            "messages": numbers.count(found.break_even_messages),
            "reason": found.break_even_reason,
            "pays_from": numbers.count(found.pays_from_messages_per_month),
            "pays_from_reason": found.pays_from_reason,
            "chart": _running_total(found),
            "volumes": [
                (
                    numbers.count(volume.messages_per_month),
                    numbers.count(volume.replicas),
                    numbers.money(volume.serving),
                    numbers.money(volume.serving_per_thousand, 4),
                    numbers.money(volume.hosted),
                    numbers.money(volume.saving),
                    _days(volume.break_even_days),
                )
                for volume in found.by_volume
            ],
            "inputs": [_input(given) for given in found.inputs],
        },
    )


def _running_total(found: CostRecord) -> Chart:
    """Draw what either way has cost month by month at the planned volume."""
    planned, once = found.planned, found.one_off
    days = planned.break_even_days
    even = None if days is None else days / _DAYS_PER_MONTH
    months = _LEAST_MONTHS
    if even is not None:
        months = min(_MOST_MONTHS, max(months, math.ceil(1.5 * even)))
    own = [(float(at), once + at * planned.serving) for at in (0, months)]
    hosted = [(float(at), at * planned.hosted) for at in (0, months)]
    told = range(0, months + 1, max(1, months // 6))
    return line_chart(
        [
            Line("the adapter", tuple(own), "s1", marked=False),
            Line("the hosted model", tuple(hosted), "s2", marked=False),
        ],
        title="Spent so far",
        caption=f"{found.currency}, at the planned volume, training and labelling included.",
        x_title="months",
        y_title=found.currency,
        table=(
            ("months", "the adapter", "the hosted model"),
            tuple(
                (
                    str(at),
                    numbers.money(once + at * planned.serving),
                    numbers.money(at * planned.hosted),
                )
                for at in told
            ),
        ),
        write_y=numbers.money,
        whole_x=True,
        y_range=(0.0, max(*(y for _, y in (*own, *hosted)), 1e-6) * 1.05),
        marks=[Mark(even, "break-even")] if even is not None and even <= months else (),
    )


def _days(days: float | None) -> str:
    return "never" if days is None else numbers.counted(math.ceil(days), "day")


def _input(given: CostInput) -> tuple[str, str, str, str]:
    return (
        given.name.replace("_", " "),
        written(given.value),
        given.unit,
        given.source or numbers.NONE,
    )
