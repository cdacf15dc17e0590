"""What the adapter costs, beside a hosted model."""

from __future__ import annotations

import math
from typing import Any

from trainer.report import numbers
from trainer.report.charts.lines import Line, Mark, line_chart
from trainer.report.charts.svg import Chart
from trainer.report.read import COST, Record, Run
from trainer.report.section import Section, lacking
from trainer.report.tables import written

_DAYS_PER_MONTH = 365.25 / 12
_LEAST_MONTHS, _MOST_MONTHS = 12, 60


def cost(run: Run) -> Section:
    """Return when the adapter has paid for itself, the bill by volume, and every input."""
    title = "What it costs"
    if run.cost is None:
        return lacking("cost", title, COST)
    found = run.cost
    days = found["planned"]["break_even_days"]
    return Section(
        "cost",
        title,
        {
            "currency": found["currency"],
            "one_off": numbers.money(found["one_off"]),
            "training": numbers.money(found["training"]),
            "labelling": numbers.money(found["labelling"]),
            "own": numbers.money(found["per_thousand_messages"], 4),
            "hosted": numbers.money(found["hosted_per_thousand"], 4),
            "volume": numbers.count(found["planned"]["messages_per_month"]),
            "serving_month": numbers.money(found["planned"]["serving"]),
            "hosted_month": numbers.money(found["planned"]["hosted"]),
            "days": None if days is None else numbers.counted(math.ceil(days), "day"),
            "messages": numbers.count(found.get("break_even_messages")),
            "reason": found.get("break_even_reason"),
            "pays_from": numbers.count(found.get("pays_from_messages_per_month")),
            "pays_from_reason": found.get("pays_from_reason"),
            "chart": _running_total(found),
            "volumes": [
                (
                    numbers.count(one["messages_per_month"]),
                    numbers.count(one["replicas"]),
                    numbers.money(one["serving"]),
                    numbers.money(one["serving_per_thousand"], 4),
                    numbers.money(one["hosted"]),
                    numbers.money(one["saving"]),
                    _days(one["break_even_days"]),
                )
                for one in found["by_volume"]
            ],
            "inputs": [_input(one) for one in found["inputs"]],
        },
    )


def _running_total(found: Record) -> Chart:
    """Draw what has been spent after so many months at the planned volume, on either way."""
    planned, once = found["planned"], found["one_off"]
    days = planned["break_even_days"]
    even = None if days is None else days / _DAYS_PER_MONTH
    months = _LEAST_MONTHS
    if even is not None:
        months = min(_MOST_MONTHS, max(months, math.ceil(1.5 * even)))
    own = [(float(at), once + at * planned["serving"]) for at in (0, months)]
    hosted = [(float(at), at * planned["hosted"]) for at in (0, months)]
    told = range(0, months + 1, max(1, months // 6))
    return line_chart(
        [
            Line("the adapter", tuple(own), "s1", marked=False),
            Line("the hosted model", tuple(hosted), "s2", marked=False),
        ],
        title="Spent so far",
        caption=f"{found['currency']}, at the planned volume, training and labelling included.",
        x_title="months",
        y_title=found["currency"],
        table=(
            ("months", "the adapter", "the hosted model"),
            tuple(
                (
                    str(at),
                    numbers.money(once + at * planned["serving"]),
                    numbers.money(at * planned["hosted"]),
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


def _input(one: Any) -> tuple[str, str, str, str]:
    return (
        str(one["name"]).replace("_", " "),
        written(one["value"]),
        str(one.get("unit") or ""),
        str(one.get("source") or numbers.NONE),
    )
