"""What the adapter costs, beside a hosted model."""

from __future__ import annotations

from typing import Any

from trainer.report import numbers
from trainer.report.read import COST, Run
from trainer.report.section import Section, lacking
from trainer.report.tables import flatten, written


def cost(run: Run) -> Section:
    """Return the inputs with their sources, and everything that follows from them."""
    title = "What it costs"
    if run.cost is None:
        return lacking("cost", title, COST)
    return Section(
        "cost",
        title,
        {
            "inputs": [_input(one) for one in run.cost.get("inputs", ())],
            "results": [
                (name.replace("_", " "), value)
                for key, value in run.cost.items()
                if key not in {"schema", "inputs", "created_at"}
                for name, value in flatten(value, key)
            ],
        },
    )


def _input(one: Any) -> tuple[str, str, str, str]:
    return (
        str(one["name"]).replace("_", " "),
        written(one["value"]),
        str(one.get("unit") or ""),
        str(one.get("source") or numbers.NONE),
    )
