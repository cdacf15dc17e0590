"""Charts are well-formed, have a text alternative, and show the right numbers."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from trainer.report import charts
from trainer.report.charts import (
    Chart,
    Line,
    confusion_chart,
    line_chart,
)

HOSTILE = '<script>alert("x")</script>&'


def line(points: tuple[tuple[float, float], ...], **settings: object) -> Chart:
    return line_chart(
        [Line(HOSTILE, points, "s1"), Line("b", points, "s2", spans=((0.1, 0.3),))],
        title="t",
        caption="c",
        x_title="x",
        y_title="y",
        write_y=str,
        **settings,  # type: ignore[arg-type]
    )


CHARTS = [
    line(((1, 0.2), (2, 0.4), (3, 0.1))),
    line(((5, 0.7),)),
    line(((1, 0.9), (10, 0.9), (100, 0.9)), percent=True, logarithmic=True),
    line(((0.0, 1e-6), (1.0, 2e-6)), percent_x=True),
    confusion_chart([HOSTILE, "b"], [[3, 1], [0, 0]]),
    confusion_chart(["a", "b"], [[0, 0], [0, 0]]),
    confusion_chart([f"label_{n}" for n in range(40)], [[n] * 40 for n in range(40)]),
]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.title)
def test_a_chart_is_well_formed_named_and_also_a_table(chart: Chart) -> None:
    """Also with one point, no mistakes, zeros and 40 labels; a hostile label stays text."""
    root = ET.fromstring(chart.svg)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert not [element for element in root.iter() if element.tag == "script"]
    assert "nan" not in chart.svg
    assert "inf" not in chart.svg.replace("info", "")
    assert all(len(row) == len(chart.columns) for row in chart.rows)


def test_every_cell_of_the_heat_map_explains_itself() -> None:
    root = ET.fromstring(confusion_chart(["fee", "refund"], [[8, 2], [0, 5]]).svg)
    titles = [title.text for title in root.iter("title")]
    assert titles == [
        "fee: 8 of 10 right (80.0%)",
        "fee answered as refund: 2 of 10 (20.0%)",
        "refund answered as fee: 0 of 5 (0.0%)",
        "refund: 5 of 5 right (100.0%)",
    ]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.912, 0.944), (0, 2.4), (1, 17_000), (0, 2e-4), (-3, 3), (0, 12)]
)
def test_ticks_are_round_distinct_and_inside(low: float, high: float) -> None:
    ticks = charts.nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)
    write = charts.tick_writer(ticks)
    assert len({write(tick) for tick in ticks}) == len(ticks)
    assert [float(write(tick).replace(",", "")) for tick in ticks] == pytest.approx(ticks)
