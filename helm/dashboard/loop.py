"""The loop: records in flight, transactions, rebalances."""

from __future__ import annotations

from helm.dashboard.grafana import BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, Placed, graph, query
from helm.dashboard.queries import OF, RECORDS, WORKER, quantile, rate

PANELS: list[Placed] = [
    (
        8,
        8,
        graph(
            "Messages in the worker",
            "Fetched and not yet committed (in flight); of those, in the engine, or completed and "
            "waiting for an older one. In flight stays below loop.max_in_flight for each worker, "
            "and in the engine below 256.",
            [
                query(f"sum(clerk_in_flight_records{{{OF}}})", "in flight"),
                query(f"sum(clerk_in_engine_records{{{OF}}})", "in the engine"),
                query(
                    f"sum(clerk_watermark_gap_records{{{OF}}})",
                    "completed, behind an older one",
                ),
            ],
            unit="short",
            colours={
                "in flight": BLUE,
                "in the engine": GREEN,
                "completed, behind an older one": ORANGE,
            },
        ),
    ),
    (
        8,
        8,
        graph(
            "Paused workers",
            "Share of workers that have paused fetching because enough is in flight. Normal under "
            "load; all the time means that the engine is the limit.",
            [query(f"avg(job:clerk_paused:ratio{{{OF}}})", "paused")],
            unit="percentunit",
            highest=1,
            colours={"paused": ORANGE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Bytes in flight",
            "Size of the messages in flight, of the worker with the most.",
            [query(f"max(clerk_in_flight_bytes{{{OF}}})", "largest")],
            unit="bytes",
            colours={"largest": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Transactions",
            "Per second by result. Aborted ones are retried; unknown is a commit without an "
            "answer, which is resolved before anything is retried.",
            [query(rate("clerk_transactions_total", "result"), "{{result}}")],
            unit="short",
            stacked=True,
            colours={"committed": GREEN, "aborted": RED, "unknown": ORANGE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Duration of a transaction",
            "From its beginning to its commit. Far above 0.1 s: the brokers are slow.",
            [
                query(quantile(0.5, "clerk_transaction_seconds"), "median"),
                query(quantile(0.99, "clerk_transaction_seconds"), "99th percentile"),
            ],
            unit="s",
            colours={"median": GREEN, "99th percentile": RED},
        ),
    ),
    (
        8,
        8,
        graph(
            "Messages per transaction",
            "Results that are committed together. Rises with the load, up to 500 records.",
            [
                query(
                    f"{rate(RECORDS)} / "
                    + rate("clerk_transactions_total", more='result="committed"'),
                    "messages",
                )
            ],
            unit="short",
            colours={"messages": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Rebalances",
            "Per minute: partitions that were assigned, revoked in good order or lost, and "
            "messages that were dropped with them, which their next owner labels.",
            [
                query(f"60 * {rate('clerk_rebalances_total', 'kind')}", "{{kind}}"),
                query(f"60 * {rate('clerk_dropped_records_total')}", "messages dropped"),
            ],
            unit="short",
            colours={"assigned": GREEN, "revoked": YELLOW, "lost": RED, "messages dropped": PURPLE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Time since the last poll",
            "Of the worker with the longest. Above the dashed line, its loop hangs.",
            [query(f"max(time() - clerk_last_poll_timestamp_seconds{{{OF}}})", "longest")],
            unit="s",
            limit=120,
            colours={"longest": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Partitions of each worker",
            "Equal shares are good. 0 for a long time: one worker too many.",
            [query(f"clerk_assigned_partitions{{{OF}}}", WORKER)],
            unit="short",
            stacked=True,
        ),
    ),
    (
        12,
        8,
        graph(
            "Waiting for Kafka",
            "For how long results have waited for a Kafka that nobody answers for, of the worker "
            "with the longest. They are kept, and published when it is back.",
            [query(f"max(clerk_kafka_outage_seconds{{{OF}}})", "longest")],
            unit="s",
            limit=180,
            colours={"longest": BLUE},
        ),
    ),
    (
        12,
        8,
        graph(
            "Window of the engine",
            "Messages that each worker gives its engine at a time. It shrinks where the engine is "
            "slow, so that no message is overdue before its turn.",
            [query(f"clerk_engine_window_records{{{OF}}}", WORKER)],
            unit="short",
        ),
    ),
]
