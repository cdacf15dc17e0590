"""The loop: what the worker holds, commits and gives back."""

from __future__ import annotations

from helm.dashboard.grafana import BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, Placed, graph, query
from helm.dashboard.queries import OF, RECORDS, WORKER, quantile, rate

PANELS: list[Placed] = [
    (
        8,
        8,
        graph(
            "Messages in the worker",
            "Fetched and not yet committed, and of those in the engine. The first stays below "
            "loop.max_in_flight for each worker.",
            [
                query(f"sum(clerk_in_flight_records{{{OF}}})", "held"),
                query(f"sum(clerk_in_engine_records{{{OF}}})", "in the engine"),
                query(
                    f"sum(clerk_watermark_gap_records{{{OF}}})",
                    "finished, behind an unfinished one",
                ),
            ],
            unit="short",
            colours={
                "held": BLUE,
                "in the engine": GREEN,
                "finished, behind an unfinished one": ORANGE,
            },
        ),
    ),
    (
        8,
        8,
        graph(
            "Held back",
            "Share of workers that have stopped fetching because they hold all they may. Normal "
            "under load; all the time means that the engine is the limit.",
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
            "Bytes in the worker",
            "Size of the messages that are held, of the fullest worker.",
            [query(f"max(clerk_in_flight_bytes{{{OF}}})", "fullest worker")],
            unit="bytes",
            colours={"fullest worker": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Transactions",
            "Per second by result. Aborted ones are repeated; unknown is a commit whose answer did "
            "not come, and is looked up before anything is repeated.",
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
            "Time of a transaction",
            "From its begin to its commit. Far above 0.1 s: the brokers are slow.",
            [
                query(quantile(0.5, "clerk_transaction_seconds"), "half"),
                query(quantile(0.99, "clerk_transaction_seconds"), "99 %"),
            ],
            unit="s",
            colours={"half": GREEN, "99 %": RED},
        ),
    ),
    (
        8,
        8,
        graph(
            "Messages per transaction",
            "Results that are committed together. Rises with the load, up to "
            "loop.publish_max_records.",
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
            "Per minute: partitions that came (assigned), went as asked (revoked) or were taken"
            " away (lost), and messages dropped with them, which the next owner labels.",
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
            "Since the loop last polled",
            "Seconds, of the worker that was away longest. Above the dashed line the loop hangs.",
            [query(f"max(time() - clerk_last_poll_timestamp_seconds{{{OF}}})", "longest away")],
            unit="s",
            limit=120,
            colours={"longest away": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Partitions of each worker",
            "Even shares are well. Nought for long: a worker too many.",
            [query(f"clerk_assigned_partitions{{{OF}}}", WORKER)],
            unit="short",
            stacked=True,
        ),
    ),
]
