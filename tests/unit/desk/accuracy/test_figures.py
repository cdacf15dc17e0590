"""All figures of the page from a database, and its metrics."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from desk.accuracy.figures import AccuracyFigures, accuracy_figures, measure
from desk.accuracy.metrics import NAMES, AccuracyMetrics, families
from desk.errors import DatabaseUnavailable
from desk.service import reviewing
from desk.store import items
from desk.store.counts import Audited, DayTraffic
from desk.store.types import Person
from tests.support.desk_world import START_MS, DeskWorld

pytestmark = pytest.mark.slow

DAY = START_MS // 86_400_000


def audit(world: DeskWorld, **changes: object) -> int:
    """An item of the audit sample, the message of which is here."""
    return world.add(**{"origin": "audit", "sample_share": 0.02, "reasons": (), **changes}).id  # type: ignore[arg-type]


def decide(world: DeskWorld, person: Person, item_id: int, label: str | None) -> None:
    world.decide(person, label, item_id, seconds=36)


def count(world: DeskWorld, label: str, results: int, digest: str = "a" * 64) -> None:
    with world.database.write() as tx:
        items.count_traffic(tx, {(DAY, label, digest, False): results})


def audited(n: int, **changes: object) -> Audited:
    values: dict[str, object] = {
        "item_id": n,
        "label": "delivery",
        "adapter_digest": "a" * 64,
        "doubtful": False,
        "sample_share": 0.02,
        "labelled_ms": START_MS,
        "settled": True,
        "outcome_label": "delivery",
        "adjudicated": False,
        "opinions": ("delivery",),
    }
    return Audited(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def figures(world: DeskWorld) -> AccuracyFigures:
    """Twelve audited results of "delivery", of which three are refunds; one dispute that was
    settled; one that waits; and one of the review queue, which is no part of the sample."""
    ann, bob, eve = world.person("ann"), world.person("bob"), world.person("eve", "adjudicator")
    for n in range(11):
        decide(world, ann, audit(world), "refund" if n < 2 else "delivery")
    disputed = audit(world, opinions_wanted=2)
    decide(world, ann, disputed, "delivery")
    decide(world, bob, disputed, "refund")
    assert reviewing.next_dispute(world.desk, eve) is not None
    reviewing.decide(
        world.desk,
        eve,
        disputed,
        reviewing.Said(world.request(), "label", "refund", seconds=36),
        final=True,
    )
    agreed = audit(world, opinions_wanted=2, label="other")
    decide(world, ann, agreed, "other")
    decide(world, bob, agreed, "other")
    audit(world)
    decide(world, ann, world.add().id, "payment")
    count(world, "delivery", 900)
    count(world, "other", 100)
    world.clock.move(2 * 86_400)
    return accuracy_figures(world.desk)


def test_the_accuracy_is_that_of_the_audit_sample(figures: AccuracyFigures) -> None:
    """Nine of twelve, and one of one that stands for a tenth: too few to stand alone."""
    recent = figures.measured.recent
    assert (recent.results, recent.drawn) == (1000, 14)
    told = recent.accuracy
    assert told is not None
    assert told.verdicts == 13
    assert told.plain == pytest.approx(10 / 13)
    assert told.corrected
    assert told.low < told.observed < told.high
    delivery, other = figures.measured.labels
    assert (delivery.name, delivery.results, delivery.drawn) == ("delivery", 900, 13)
    assert delivery.accuracy is not None
    assert delivery.accuracy.plain == pytest.approx(9 / 12)
    assert (other.name, other.results) == ("other", 100)
    (week,) = figures.measured.weeks
    assert week.part == recent


def test_confusions_and_mistakes_and_cost(figures: AccuracyFigures) -> None:
    """Ann was wrong in one of four checked opinions. Waiting items are counted by age."""
    (confusion,) = figures.measured.confusions
    assert (confusion.machine, confusion.people) == ("delivery", "refund")
    assert (confusion.audited, confusion.results) == (3, 225)
    mistakes = figures.measured.mistakes
    assert mistakes is not None
    assert (mistakes.items, mistakes.any.value) == (2, 0.25)
    assert figures.cost.decisions == {"audit": 16, "review": 1}
    assert figures.cost.hours["audit"] == pytest.approx(0.16)
    (waiting,) = figures.waiting
    assert (waiting.origin, waiting.state, waiting.items) == ("audit", "open", 1)
    assert waiting.oldest_s == 2 * 86_400
    assert (waiting.over_a_day, waiting.over_a_week) == (1, 0)
    assert figures.agreement.items == 2


def test_an_opinion_by_another_taxonomy_is_none(world: DeskWorld) -> None:
    """A label of the same name may mean something else there."""
    ann = world.person("ann")
    decide(world, ann, audit(world, taxonomy_digest="f" * 64), "delivery")
    count(world, "delivery", 10)
    recent = accuracy_figures(world.desk).measured.recent
    assert (recent.drawn, recent.accuracy) == (1, None)


def test_disputes_that_wait_are_not_left_out() -> None:
    """Reviewers disagree where the model is wrong: without disputes it would look better."""
    dispute = {"settled": False, "outcome_label": None, "opinions": ("refund", "delivery")}
    sample = [audited(n) for n in range(8)] + [audited(n, **dispute) for n in (8, 9)]
    traffic = [DayTraffic(DAY, "delivery", "a" * 64, False, 500)]
    measured = measure(sample, traffic, START_MS)
    told = measured.recent.accuracy
    assert told is not None
    assert (told.verdicts, told.plain) == (10, 0.8)
    assert measured.mistakes is not None
    assert measured.mistakes.any.value == 0.5


def test_no_label_fits_is_a_mistake_of_the_machine() -> None:
    sample = [audited(0), audited(1, outcome_label=None, opinions=(None,))]
    measured = measure(sample, [DayTraffic(DAY, "delivery", "a" * 64, False, 100)], START_MS)
    assert measured.recent.accuracy is not None
    assert measured.recent.accuracy.observed == 0.5
    assert [each.people for each in measured.confusions] == [None]


def test_a_fall_is_seen_across_weeks() -> None:
    sample = [
        audited(
            100 * day + n,
            labelled_ms=START_MS - day * 86_400_000,
            outcome_label="refund" if n < (6 if day < 7 else 1) else "delivery",
        )
        for day in range(77)
        for n in range(20)
    ]
    traffic = [DayTraffic(DAY - day, "delivery", "a" * 64, False, 1000) for day in range(77)]
    measured = measure(sample, traffic, START_MS)
    assert [(fall.window_days, fall.fell) for fall in measured.falls] == [(7, True), (28, True)]
    assert len(measured.weeks) in {11, 12}
    assert all(
        not fall.fell
        for fall in measure(sample[140:], traffic[7:], START_MS - 7 * 86_400_000).falls
    )


def test_metrics(figures: AccuracyFigures, world: DeskWorld) -> None:
    reads = []

    def read() -> AccuracyFigures:
        reads.append(1)
        return figures

    registry = CollectorRegistry(auto_describe=False)
    registry.register(AccuracyMetrics(read, world.clock))
    page = generate_latest(registry).decode()
    generate_latest(registry)
    assert len(reads) == 1
    assert re.search(r"^clerk_desk_accuracy 0\.\d+$", page, re.MULTILINE)
    assert 'clerk_desk_adapter_audited{adapter="aaaaaaaaaaaa",adapter_name="shop"} 13.0' in page
    assert 'clerk_desk_label_accuracy_low{label="delivery"} 0.' in page
    assert 'clerk_desk_accuracy_fell{window_days="7"} 0.0' in page
    assert 'clerk_desk_waiting_oldest_seconds{origin="audit",state="open"} 172800.0' in page
    assert "clerk_desk_reviewer_mistakes 0.25" in page
    world.clock.move(61)
    generate_latest(registry)
    assert len(reads) == 2


def test_the_metrics_have_their_names(figures: AccuracyFigures) -> None:
    assert tuple(family.name for family in families(figures)) == NAMES


def test_no_metrics_while_the_database_is_away(world: DeskWorld) -> None:
    """Old figures would look like new ones. The scrape itself succeeds."""

    def away() -> AccuracyFigures:
        raise DatabaseUnavailable("the database cannot be reached")

    registry = CollectorRegistry(auto_describe=False)
    registry.register(AccuracyMetrics(away, world.clock))
    assert generate_latest(registry) == b""
