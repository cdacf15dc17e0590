"""Print ``docs/metrics.md`` from the metrics: ``python -m worker.observe.page``."""

from __future__ import annotations

from worker.observe import metrics as named
from worker.observe.metrics import METRICS, Metric

_HEAD = """# Metrics

For everyone who builds a dashboard or an alert: the metrics on `http://HOST:8080/metrics`, in the
Prometheus text format. `make metrics` generates this page from `worker/observe/metrics.py`.

The engine's own metrics (`vllm:*`) are on the same page; vLLM's documentation explains them.
`model.engine_args.disable_log_stats = true` leaves them out.

The label `adapter` is the first 12 characters of a digest. Counters begin at 0 for every label
value that is known beforehand. Series of a partition disappear when the partition is revoked.
"""

# Titles by the first metric under them; the others follow in the order of the module.
_SECTIONS = {
    named.RECORDS: "Records, counted when they are committed",
    named.ADAPTER_RECORDS: "The same by adapter",
    named.STAGE_RECORDS: "The same by stage of a cascade",
    named.END_TO_END: "Durations, in seconds",
    named.IN_FLIGHT: "State of the loop",
    named.REBALANCES_TOTAL: "Consumer group, transactions, engine",
    named.DRIFT_PSI: "Drift, window by window",
    named.ADAPTER_TRAFFIC: "Adapters: swap, canary, shadow",
    named.BUILD_INFO: "About this worker",
}


def metrics_page() -> str:
    """Return the page as it is in the repository."""
    lines = [_HEAD.rstrip()]
    for metric in METRICS:
        if title := _SECTIONS.get(metric):
            lines += [
                "",
                f"## {title}",
                "",
                "| name | kind | labels | meaning |",
                "|---|---|---|---|",
            ]
        lines.append(f"| `{metric.name}` | {metric.kind} | {_labels(metric)} | {metric.help} |")
    return "\n".join([*lines, ""])


def _labels(metric: Metric) -> str:
    return ", ".join(
        f"`{label.name}`" + (f" ({', '.join(label.values)})" if label.values else "")
        for label in metric.labels
    )


if __name__ == "__main__":
    print(metrics_page(), end="")
