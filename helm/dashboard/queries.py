"""PromQL that several panels share. ``$namespace`` and ``$job`` are what the viewer has chosen."""

from __future__ import annotations

OF = 'namespace=~"$namespace", job=~"$job"'
RATE = "[$__rate_interval]"


def rate(metric: str, by: str = "", more: str = "") -> str:
    """Sum of a counter's rate, over everything or by labels."""
    group = f" by ({by})" if by else ""
    chosen = f"{OF}, {more}" if more else OF
    return f"sum{group} (rate({metric}{{{chosen}}}{RATE}))"


def quantile(share: float, histogram: str) -> str:
    """Quantile of a histogram over all workers."""
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', 'le')})"


def mean(histogram: str) -> str:
    """Mean of a histogram over all workers."""
    return f"{rate(histogram + '_sum')} / {rate(histogram + '_count')}"


def in_range(metric: str, by: str = "", more: str = "") -> str:
    """Sum of a counter's increase over the time range that is shown."""
    return rate(metric, by, more).replace("rate(", "increase(").replace(RATE, "[$__range]")


RECORDS = "clerk_records_total"
LABELLED = 'outcome=~"output|review"'
E2E = "clerk_end_to_end_seconds"
WAITING = f"sum(job:clerk_consumer_lag_records:sum{{{OF}}})"
SPEED = f"sum(job:clerk_records:rate5m{{{OF}}})"
WORKERS = f"count(clerk_ready{{{OF}}})"
ALERTS = f'ALERTS{{alertname=~"Clerk.+", alertstate="firing", {OF}}}'
WORKER = "{{pod}} {{instance}}"
