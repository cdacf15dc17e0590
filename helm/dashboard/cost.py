"""Cost: time, tokens and money for a thousand messages."""

from __future__ import annotations

from helm.dashboard.grafana import BLUE, ORANGE, Placed, graph, query, stat
from helm.dashboard.queries import RECORDS, WORKERS, in_range, rate

LABELLED = f"({rate(RECORDS)} > 0)"  # of none a thousand would take for ever

PANELS: list[Placed] = [
    (
        4,
        8,
        stat(
            "Cost of a thousand messages",
            "In your currency, at the price of a worker's hour given above and the load of the "
            "time range. Idle hours are paid too: a busier worker is cheaper per message.",
            [
                query(
                    f"1000 * $price * sum_over_time({WORKERS}[$__range:$__interval]) "
                    f"* $__interval_ms / 3600000 / {in_range(RECORDS)}",
                    "",
                    True,
                )
            ],
            unit="short",
            decimals=3,
        ),
    ),
    (
        4,
        8,
        stat(
            "Messages in the time range",
            "Committed, whatever their outcome.",
            [query(in_range(RECORDS), "", True)],
            unit="short",
        ),
    ),
    (
        8,
        8,
        graph(
            "Seconds for a thousand messages",
            "Paid: seconds of workers, idle or not. Busy: seconds with a message in the engine. "
            "Fewer workers would save the difference.",
            [
                query(f"1000 * {WORKERS} / {LABELLED}", "paid"),
                query(
                    f"1000 * {rate('clerk_engine_busy_seconds_total')} / {LABELLED}",
                    "busy",
                ),
            ],
            unit="s",
            colours={"paid": ORANGE, "busy": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Tokens for a thousand messages",
            "Prompt tokens. Longer mails cost more.",
            [
                query(
                    f"1000 * {rate('clerk_prompt_tokens_total')} / {LABELLED}",
                    "prompt tokens",
                )
            ],
            unit="short",
            colours={"prompt tokens": BLUE},
        ),
    ),
]
