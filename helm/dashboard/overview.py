"""The overview: workers, backlog, speed, latency, errors."""

from __future__ import annotations

from helm.dashboard.grafana import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Placed,
    graph,
    query,
    stat,
    steps,
)
from helm.dashboard.queries import (
    ALERTS,
    E2E,
    OF,
    RECORDS,
    SPEED,
    WAITING,
    WORKERS,
    mean,
    quantile,
    rate,
)

OUTCOMES = {
    "output": GREEN,
    "review": YELLOW,
    "dead_letter": RED,
    "forwarded": BLUE,
    "skipped": PURPLE,
}

OLDEST = f"max(job:clerk_consumer_lag_seconds:max{{{OF}}})"
AT_RISK = f"0.7 * min(clerk_topic_retention_seconds{{{OF}}})"

PANELS: list[Placed] = [
    (
        3,
        4,
        stat(
            "Workers ready",
            "Workers whose model is warm and that have joined the consumer group, and all workers. "
            "None ready: nothing is labelled.",
            [
                query(f"sum(job:clerk_ready:sum{{{OF}}})", "ready", True),
                query(f"count(clerk_ready{{{OF}}})", "all", True),
            ],
            unit="short",
            thresholds=steps((None, RED), (1, GREEN)),
            no_value="no worker",
        ),
    ),
    (
        3,
        4,
        stat(
            "Alerts",
            "Alerts of this project that are firing now. Their names are headings in "
            "docs/operations.md.",
            [
                query(
                    f"count({ALERTS}) or vector(0)",
                    "",
                    True,
                )
            ],
            unit="short",
            thresholds=steps((None, GREEN), (1, RED)),
        ),
    ),
    (
        3,
        4,
        stat(
            "Messages waiting",
            "Published and not yet labelled (consumer lag). Rises at peaks; it should fall again.",
            [query(f"sum(job:clerk_consumer_lag_records:sum{{{OF}}})", "", True)],
            unit="short",
        ),
    ),
    (
        3,
        4,
        stat(
            "Time to drain",
            "How long the waiting messages take at the speed of the last five minutes. Above five "
            "minutes for a long time: too few workers.",
            [query(f"({WAITING} == 0) or {WAITING} / ({SPEED} > 0)", "", True)],
            unit="s",
            thresholds=steps((None, GREEN), (120, ORANGE), (300, RED)),
            no_value="no output",
        ),
    ),
    (
        3,
        4,
        stat(
            "Messages per second",
            "Committed messages, whatever their outcome.",
            [query(rate(RECORDS), "", True)],
            unit="short",
            decimals=1,
        ),
    ),
    (
        3,
        4,
        stat(
            "Latency (p99)",
            "From a message's timestamp to its committed label. The alerts' objective is 60 s.",
            [query(quantile(0.99, E2E), "", True)],
            unit="s",
            thresholds=steps((None, GREEN), (30, ORANGE), (60, RED)),
        ),
    ),
    (
        3,
        4,
        stat(
            "In time, 1 h",
            "Share of the last hour's messages labelled within 60 s. The objective is 99 %.",
            [
                query(
                    f"1 - sum(job:clerk_end_to_end_seconds:slow_ratio_rate1h{{{OF}}} * "
                    f"job:clerk_end_to_end_seconds_count:increase1h{{{OF}}}) / "
                    f"sum(job:clerk_end_to_end_seconds_count:increase1h{{{OF}}})",
                    "",
                    True,
                )
            ],
            unit="percentunit",
            thresholds=steps((None, RED), (0.9, ORANGE), (0.99, GREEN)),
            decimals=1,
        ),
    ),
    (
        3,
        4,
        stat(
            "Dead letters, 1 h",
            "Share of the last hour's messages that could not be labelled and went to the "
            "dead-letter topic with a reason. Nothing is lost.",
            [
                query(
                    f'sum(increase(clerk_records_total{{{OF}, outcome="dead_letter"}}[1h])) / '
                    f"sum(increase(clerk_records_total{{{OF}}}[1h]))",
                    "",
                    True,
                )
            ],
            unit="percentunit",
            thresholds=steps((None, GREEN), (0.01, ORANGE), (0.05, RED)),
            decimals=1,
        ),
    ),
    (
        8,
        8,
        graph(
            "Messages by outcome",
            "Messages per second by the topic they were written to: output, review or dead "
            "letters; and tombstones, forwarded or skipped.",
            [query(rate(RECORDS, "outcome"), "{{outcome}}")],
            unit="short",
            stacked=True,
            colours=OUTCOMES,
        ),
    ),
    (
        8,
        8,
        graph(
            "End-to-end latency",
            "From a message's timestamp (set by its publisher) to its committed label. After an "
            "outage, old messages are slow: the lines show how old they were.",
            [
                query(quantile(0.5, E2E), "median"),
                query(quantile(0.95, E2E), "95th percentile"),
                query(quantile(0.99, E2E), "99th percentile"),
            ],
            unit="s",
            colours={"median": GREEN, "95th percentile": ORANGE, "99th percentile": RED},
        ),
    ),
    (
        8,
        8,
        graph(
            "Messages waiting",
            "Consumer lag of all partitions together, and of the one with the largest. One "
            "partition far above its share: a key with much traffic, or a worker that is stuck.",
            [
                query(f"sum(job:clerk_consumer_lag_records:sum{{{OF}}})", "all partitions"),
                query(f"max(clerk_consumer_lag_records{{{OF}}})", "largest partition"),
            ],
            unit="short",
            colours={"all partitions": BLUE, "largest partition": PURPLE},
        ),
    ),
    (
        8,
        7,
        graph(
            "Age of the oldest message",
            "How long the oldest message that waits has waited: the lag in seconds. How long the "
            "workers need for all that waits, at their present speed. From a tenth of it on also "
            "the age at which Kafka's retention puts messages at risk.",
            [
                query(OLDEST, "oldest message"),
                query(f"max(job:clerk_drain_seconds{{{OF}}})", "work that waits"),
                query(f"{AT_RISK} < 10 * {OLDEST}", "retention at risk"),
            ],
            unit="s",
            colours={"oldest message": PURPLE, "work that waits": BLUE, "retention at risk": RED},
        ),
    ),
    (
        8,
        7,
        graph(
            "Where the time goes",
            "Mean time of a message in the worker: until it is submitted to the engine, in the "
            "engine, and until its result is committed. Its wait in Kafka is not included.",
            [
                query(mean("clerk_queue_seconds"), "to the engine"),
                query(mean("clerk_engine_seconds"), "in the engine"),
                query(mean("clerk_commit_wait_seconds"), "to the commit"),
            ],
            unit="s",
            stacked=True,
            colours={"to the engine": PURPLE, "in the engine": BLUE, "to the commit": YELLOW},
        ),
    ),
    (
        8,
        7,
        graph(
            "Workers",
            "All workers, those that are ready, and those that have partitions. More workers than "
            "partitions are wasted.",
            [
                query(WORKERS, "all"),
                query(f"sum(job:clerk_ready:sum{{{OF}}})", "ready"),
                query(f"count(clerk_assigned_partitions{{{OF}}} > 0)", "with partitions"),
            ],
            unit="short",
            colours={"all": BLUE, "ready": GREEN, "with partitions": PURPLE},
        ),
    ),
    (
        8,
        7,
        graph(
            "Errors",
            "Per minute: dead letters, transactions that were not committed (their results are "
            "published again), partitions that were lost.",
            [
                query(
                    "60 * " + rate(RECORDS, more='outcome="dead_letter"'),
                    "dead letters",
                ),
                query(
                    "60 * " + rate("clerk_transactions_total", more='result=~"aborted|unknown"'),
                    "failed transactions",
                ),
                query(
                    "60 * " + rate("clerk_rebalances_total", more='kind="lost"'), "partitions lost"
                ),
            ],
            unit="short",
            colours={"dead letters": RED, "failed transactions": ORANGE, "partitions lost": PURPLE},
        ),
    ),
]
