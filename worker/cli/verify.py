"""``clerk-worker verify``: its options parsed, its verdict printed."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from worker.cli.options import AsJson, Config, Sets, check_digest
from worker.cli.ranges import InputTopic, Offsets, Since, Until, input_range
from worker.errors import EXIT_UNEXPECTED


def verify(
    since: Since = None,
    until: Until = None,
    offsets: Offsets = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIGEST",
            help="An adapter that was in service, by the first digits of its digest; results "
            "by any other are a fault. Repeatable. Default: those in the store that "
            "model.adapter names.",
        ),
    ] = None,
    show_first: Annotated[
        int, typer.Option("--show", min=1, help="Most offenders to show of each fault.")
    ] = 10,
    topic: InputTopic = None,
    as_json: AsJson = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Prove that each input record has exactly one result; exit 0 if so, 1 if not.

    Reads the input topic and the output, review and dead-letter topics, as the worker's settings
    name them, and finds input records without a result, results that come twice or out of order,
    results for records that do not exist, records that no worker wrote, and results by an unknown
    adapter. Nothing is changed: run it at any time, also while workers run. Without a range it
    looks at everything that the group has committed; what comes after is pending.

    Examples: clerk-worker verify -c config/worker.toml
    · clerk-worker verify -c config/worker.toml --since 2026-03-02T06:00 --json
    """
    from rich.console import Console

    from worker.cli.load import load_offline
    from worker.offline.verify.run import VerifyRequest, run_verify
    from worker.offline.verify.show import show, to_json

    for digits in adapter or ():
        check_digest("--adapter", digits)
    records = input_range(since, until, offsets)
    settings = load_offline(config, sets, use_demo=False).settings
    found = run_verify(settings, VerifyRequest(records, tuple(adapter or ()), show_first, topic))
    if as_json:
        print(json.dumps(to_json(found), indent=1))
    else:
        show(found, Console(highlight=False, soft_wrap=True))
    if not found.verdict.is_proven:
        sys.exit(EXIT_UNEXPECTED)
