"""The worker's model from Python, without Kafka::

    from worker.library import open_clerk

    with open_clerk("runs/v1/adapter") as clerk:
        for result in clerk.label(["where is my parcel?", "i want my money back"]):
            print(result.label, result.confidence, result.review.needed)

``clerk-worker classify`` labels by the same code. What is documented here is kept as the command
line is: a change stands in the changelog.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from worker.common.logs import configure_logging
from worker.contract.records import OutputRecord, SupportMessage
from worker.offline.classify import Clerk, NoLabel, clerk_of
from worker.settings import load_settings

__all__ = ["Clerk", "NoLabel", "OutputRecord", "SupportMessage", "open_clerk"]


@contextmanager
def open_clerk(
    adapter: str | Path | None = None,
    *,
    base: str | Path | None = None,
    config: Path | None = None,
    settings: Sequence[str] = (),
) -> Iterator[Clerk]:
    """Open a model, checked as a worker checks it, and close it at the end.

    ``adapter`` is an adapter's folder or a store, of which the current adapter is taken; None: the
    demo's model. ``base`` is the folder of the base model, for an adapter that needs one.
    ``config`` is a file as of ``clerk-worker -c``, ``settings`` are ``KEY=VALUE`` as of ``-s``.

    Logging is configured (warnings, to standard error) unless structlog is already. Raises
    SettingsError, AdapterRefused, EngineDied.
    """
    if not structlog.is_configured():
        configure_logging("console", "warning")
    given = list(settings)
    if adapter is not None:
        given.append(f"model.adapter={adapter}")
    elif config is None:
        from worker.demo.run import demo_model_settings

        given = [*demo_model_settings(), *given]
    if base is not None:
        given.append(f"model.base={base}")
    with clerk_of(load_settings(config, given).settings) as clerk:
        yield clerk
