"""A metrics page, parsed as Prometheus would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.rig import toy_completed, toy_record
from tests.support.toy_adapter import small_manifest
from worker.contract import Decision
from worker.core.assignment import CompletedRecord
from worker.observe.registry import Registry
from worker.observe.server import HttpServer, Page
from worker.records.types import Classified, Outcome, Rejected, Timing


class Scrape:
    """One page, parsed: a series' value by its name and labels."""

    def __init__(self, page: bytes) -> None:
        self.families = {
            family.name: family for family in text_string_to_metric_families(page.decode())
        }
        self.series = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.series.get((name, tuple(sorted(labels.items()))))


def label(name: str = "billing", *review: Any, p: float = 0.9, truncated: bool = False) -> Outcome:
    decision = Decision(name, p, {name: p}, 0.02)
    return Classified(decision, None, truncated, review, Timing(queue_s=0.25, engine_s=0.5))


def rejected(reason: Any = "not_json") -> Outcome:
    return Rejected(reason, "decode", "")


def finished(*outcomes: Outcome, at: float = 1000.0, **changes: Any) -> list[CompletedRecord]:
    return [
        toy_completed(
            toy_record(offset=n, **changes), outcome, fetched_at=at - 0.75, finished_at=at
        )
        for n, outcome in enumerate(outcomes)
    ]


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def adapter() -> str:
    return small_manifest().digest[:12]


@pytest.fixture
def serve() -> Iterator[Callable[..., HttpServer]]:
    servers: list[HttpServer] = []

    def start(pages: dict[str, Callable[[], Page]], port: int = 0) -> HttpServer:
        servers.append(HttpServer("127.0.0.1", port, pages))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
