"""The desk: how right the labels are, what waits for people, and what is on its way."""

from __future__ import annotations

from helm.dashboard.grafana import BLUE, ORANGE, RED, Placed, graph, query
from helm.dashboard.queries import OF


def _of(metric: str, how: str, by: str = "") -> str:
    """A figure of the desk: every replica tells the same one, so they are not added up."""
    group = f" by ({by})" if by else ""
    return f"{how}{group} ({metric}{{{OF}}})"


PANELS: list[Placed] = [
    (
        8,
        8,
        graph(
            "Accuracy in service",
            "Share of all results of the last 28 days that are right, from the audit sample, with "
            "its 95 % interval. Nothing while too few are decided.",
            [
                query(_of("clerk_desk_accuracy", "max"), "accuracy"),
                query(_of("clerk_desk_accuracy_low", "max"), "low"),
                query(_of("clerk_desk_accuracy_high", "max"), "high"),
            ],
            unit="percentunit",
            lowest=None,
            highest=1,
            colours={"accuracy": BLUE, "low": ORANGE, "high": ORANGE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Waits for people",
            "Items by why they are here (review: doubt; audit: the sample) and where they stand.",
            [query(_of("clerk_desk_waiting", "max", "origin, state"), "{{origin}}, {{state}}")],
            unit="short",
            stacked=True,
        ),
    ),
    (
        8,
        8,
        graph(
            "On its way",
            "Seconds that the oldest correction has waited to be published, and results in Kafka "
            "that the desk has not read. Red where corrections are stuck.",
            [
                query(_of("clerk_desk_outbox_oldest_seconds", "max"), "oldest correction, s"),
                query(_of("clerk_desk_lag_records", "max"), "results not read"),
            ],
            unit="short",
            limit=600,
            colours={"oldest correction, s": RED, "results not read": BLUE},
        ),
    ),
]
