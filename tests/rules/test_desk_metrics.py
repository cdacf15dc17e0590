"""The desk exports every metric that alerts and panels query."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from desk.accuracy.metrics import NAMES
from desk.store.database import Database
from desk.store.migrate import migrate
from desk.web.metrics import Metrics
from tests.rules.live import alerts, dashboard_queries, selectors
from tests.support.desk_world import DeskWorld


def test_the_desk_exports_every_queried_metric(tmp_path: Path) -> None:
    asked = {
        name
        for expr in (
            *(rule["expr"] for rule in alerts().values()),
            *(query.expr for query in dashboard_queries()),
        )
        for name, _ in selectors(expr)
        if name.startswith("clerk_desk_")
    }
    assert len(asked) >= 7
    database = Database(f"sqlite:///{tmp_path}/desk.db")
    migrate(database)
    world = DeskWorld(database)
    world.add()
    page = Metrics(world.desk).text().decode("utf-8")
    exported = {
        sample.name for family in text_string_to_metric_families(page) for sample in family.samples
    }
    assert "clerk_desk_database_up" in exported
    # The accuracy's appear once enough is audited (tests/unit/desk/accuracy).
    assert asked - exported - set(NAMES) == set()
    database.close()
