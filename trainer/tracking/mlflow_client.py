"""MLflow as a tracker. The only file that imports mlflow.

MLflow's own variables, such as MLFLOW_TRACKING_URI, decide where the figures go.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.tracking.session import Figures

# mlflow reads these when it is imported, and for each request. By default it sends telemetry, and
# retries seven times for two minutes each, while the training waits for a server that is down. The
# environment still wins.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_MOST_PARAMS, _MOST_METRICS = 100, 1000
"""Limits of one request (MLflow's REST API, runs/log-batch)."""

_LONGEST = 500
"""The length of a parameter that every MLflow server accepts."""


class MlflowTracker:
    """A run of an MLflow experiment; ``project`` is the experiment's name."""

    def __init__(self) -> None:
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        self._run = ""

    def start(
        self, project: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Begin a run in the experiment, which is made if it does not exist."""
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else self._client.create_experiment(project)
        self._run = self._client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id
        pairs = [Param(key, str(value)[:_LONGEST]) for key, value in params.items()]
        for at in range(0, len(pairs), _MOST_PARAMS):
            self._client.log_batch(self._run, params=pairs[at : at + _MOST_PARAMS])
        return str(self._run)

    def resume(self, run: str) -> None:
        """Continue a run by its id."""
        self._run = run

    def log(self, rows: Sequence[tuple[int, Figures]], tags: Mapping[str, str]) -> None:
        """Add figures and tags."""
        from mlflow.entities import Metric, RunTag

        now_ms = int(time.time() * 1000)
        metrics = [
            Metric(key, value, now_ms, step) for step, row in rows for key, value in row.items()
        ]
        for at in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run, metrics=metrics[at : at + _MOST_METRICS])
        if tags:
            self._client.log_batch(self._run, tags=[RunTag(*pair) for pair in tags.items()])

    def finish(self, *, failed: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
