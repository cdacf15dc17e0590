"""Metrics, health checks, ``/info``, traces, drift, and log summaries of a running worker."""
