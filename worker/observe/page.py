"""``docs/metrics.md``, from the metrics themselves: ``python -m worker.observe.page``."""

from __future__ import annotations

from worker.observe.metrics import (
    AGREES,
    GROUPS,
    OUTCOMES,
    PRESSURES,
    REASONS,
    REBALANCES,
    REFUSALS,
    ROLES,
    SHADOW_DROPS,
    SIGNALS,
    STOPS,
    SWAPS,
    TRANSACTIONS,
    WINDOW_RESULTS,
    Metric,
)

_HEAD = """# Metrics

What `http://HOST:8080/metrics` shows, in the Prometheus text format. This page is made from
`worker/observe/metrics.py` by `make metrics`.

The engine's own metrics (`vllm:*`) are on the same page; vLLM's documentation explains them.
`model.engine_args.disable_log_stats = true` leaves them out.

Counters begin at 0 for every label value that can be known beforehand. Series of a partition go
when the partition does.
"""

_VALUES = {
    ("clerk_records_total", "outcome"): OUTCOMES,
    ("clerk_dead_letters_total", "reason"): REASONS,
    ("clerk_transactions_total", "result"): TRANSACTIONS,
    ("clerk_rebalances_total", "kind"): REBALANCES,
    ("clerk_backpressure_total", "kind"): PRESSURES,
    ("clerk_drift_windows_total", "result"): WINDOW_RESULTS,
    ("clerk_drift_windows_total", "signal"): SIGNALS,
    ("clerk_drift_windows_in_a_row", "signal"): SIGNALS,
    ("clerk_drift_level", "signal"): SIGNALS,
    ("clerk_adapter_records_total", "outcome"): OUTCOMES,
    ("clerk_adapter_swaps_total", "result"): SWAPS,
    ("clerk_adapter_refusals_total", "reason"): REFUSALS,
    ("clerk_adapter_canary_stops_total", "reason"): STOPS,
    ("clerk_shadow_dropped_total", "reason"): SHADOW_DROPS,
}
_ANYWHERE = {"role": ROLES, "agrees": AGREES}


def metrics_page() -> str:
    """Return the page as it stands in the repository."""
    parts = [_HEAD]
    for title, group in GROUPS:
        rows = [f"| `{one.name}` | {one.kind} | {_labels(one)} | {one.help} |" for one in group]
        head = ["| name | kind | labels | what it tells |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", *head, *rows, ""]))
    return "\n".join(parts)


def _labels(metric: Metric) -> str:
    shown = []
    for label in metric.labels:
        values = _VALUES.get((metric.name, label)) or _ANYWHERE.get(label)
        shown.append(f"`{label}`" + (f" ({', '.join(values)})" if values else ""))
    return ", ".join(shown)


if __name__ == "__main__":
    print(metrics_page(), end="")
