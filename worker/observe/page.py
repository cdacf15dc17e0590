"""``docs/metrics.md``, from the metrics themselves: ``python -m worker.observe.page``."""

from __future__ import annotations

from worker.observe import metrics as named
from worker.observe.metrics import Metric

_HEAD = """# Metrics

For everyone who builds a dashboard or an alert: what `http://HOST:8080/metrics` shows, in the
Prometheus text format. This page is made from `worker/observe/metrics.py` and
`worker/observe/metrics.py` by `make metrics`.

The engine's own metrics (`vllm:*`) are on the same page; vLLM's documentation explains them.
`model.engine_args.disable_log_stats = true` leaves them out.

Counters begin at 0 for every label value that is known beforehand. Series of a partition disappear
when the partition is revoked.
"""

SECTIONS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    (
        "Records, counted when they are committed",
        (
            named.RECORDS,
            named.LABELS,
            named.DEAD_LETTERS,
            named.RETRIES,
            named.TRUNCATED,
            named.CONFIDENCE,
            named.OFF_LABEL_MASS,
        ),
    ),
    (
        "The same by adapter",
        (named.ADAPTER_RECORDS, named.ADAPTER_CONFIDENCE, named.ADAPTER_OFF_LABEL_MASS),
    ),
    (
        "The same by stage of a cascade",
        (
            named.STAGE_RECORDS,
            named.STAGE_SECONDS,
            named.STAGE_DISAGREEMENTS,
            named.STAGE_EXPECTED,
        ),
    ),
    (
        "Where the time went, in seconds",
        (named.END_TO_END, named.QUEUE, named.ENGINE, named.COMMIT_WAIT),
    ),
    (
        "State of the loop",
        (
            named.IN_FLIGHT,
            named.IN_FLIGHT_BYTES,
            named.IN_ENGINE,
            named.ENGINE_WINDOW,
            named.WATERMARK_GAP,
            named.ASSIGNED,
            named.PAUSED,
            named.SUSPECTS,
            named.OUTAGE,
            named.LAST_POLL,
            named.LAG,
            named.LAG_SECONDS,
            named.RETENTION,
            named.RETRY_WAITING,
            named.RETRY_DUE,
        ),
    ),
    (
        "Consumer group, transactions, engine",
        (
            named.REBALANCES_TOTAL,
            named.DROPPED,
            named.TRANSACTIONS_TOTAL,
            named.TRANSACTION_SECONDS,
            named.BACKPRESSURE,
            named.PROMPT_TOKENS,
            named.ENGINE_BUSY,
        ),
    ),
    (
        "Drift, window by window",
        (
            named.DRIFT_PSI,
            named.DRIFT_SHIFT,
            named.DRIFT_OFF_LABEL,
            named.DRIFT_THRESHOLD,
            named.DRIFT_CONSECUTIVE,
            named.DRIFT_WINDOWS,
        ),
    ),
    (
        "Adapters: swap, canary, shadow",
        (
            named.ADAPTER_TRAFFIC,
            named.SWAPS_TOTAL,
            named.LOAD_SECONDS,
            named.ADAPTER_REFUSED,
            named.REFUSALS_TOTAL,
            named.CANARY_STOPPED,
            named.CANARY_STOPS,
            named.SHADOW,
            named.SHADOW_DROPPED,
        ),
    ),
    (
        "What this worker is",
        (named.BUILD_INFO, named.CONFIG_INFO, named.ADAPTER_INFO, named.READY),
    ),
)


def metrics_page() -> str:
    """Return the page as it stands in the repository."""
    parts = [_HEAD]
    for title, metrics in SECTIONS:
        rows = [
            f"| `{metric.name}` | {metric.kind} | {_labels(metric)} | {metric.help} |"
            for metric in metrics
        ]
        head = ["| name | kind | labels | what it tells |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", *head, *rows, ""]))
    return "\n".join(parts)


def _labels(metric: Metric) -> str:
    return ", ".join(
        f"`{label.name}`" + (f" ({', '.join(label.values)})" if label.values else "")
        for label in metric.labels
    )


if __name__ == "__main__":
    print(metrics_page(), end="")
