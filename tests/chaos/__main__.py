"""``make chaos``: several workers on a real Kafka under a plan of faults, judged by ``verify``.

    python -m tests.chaos --seed 7                    200 faults, 200,000 records
    python -m tests.chaos --engine real --records 2000 --faults 20 --minutes 8
    python -m tests.chaos --payloads hostile --records 50000 --faults 0 --minutes 4
    python -m tests.chaos --retry --seed 7            with messages that are retried later
    python -m tests.chaos --soak-minutes 30           steady load, memory and handles watched

Exits with 0 when everything is proven, otherwise with 1.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.load import Values, hostile_and_fuzzed, plain_values, some_refused
from tests.chaos.plan import KINDS, Kind, PlanRequest, draw_plan
from tests.chaos.run import Goal, carry_out, summarise, table
from tests.chaos.site import Site, SiteOptions
from tests.chaos.soak import soak
from tests.chaos.worker_slot import FAKETIME, can_mount
from worker.demo.models import read_samples

# These need an engine that can be controlled, or an adapter that can be made.
_FIXED_ONLY: tuple[Kind, ...] = (
    "engine_crash",
    "engine_hang",
    "engine_slow",
    "adapter_swap",
    "clock_step",
)
_SPARE = 1.3
"""This multiple of the required faults is planned, since some have no effect."""
_LIMIT = 2.0
"""The run is abandoned after this multiple of the planned time."""


def main(arguments: Sequence[str]) -> int:
    given = _parse(arguments)
    least, _, most = given.workers.partition("-")
    kinds, left_out = _possible(given.kinds.split(",") if given.kinds else KINDS, given.engine)
    for kind, why in left_out.items():
        print(f"{kind} is left out: {why}", flush=True)
    request = PlanRequest(
        given.seed,
        int(given.faults * _SPARE) + 3 if given.faults else 0,
        given.minutes * 60 * _SPARE,
        int(least),
        int(most or least),
        kinds,
    )
    options = SiteOptions(
        delivery=given.delivery,
        protocol=given.protocol,
        real_engine=given.engine == "real",
        workers=request.most_workers,
        rate_per_s=given.rate or given.records / (given.minutes * 60),
        small_disks=can_mount() and any("disk" in kind for kind in kinds),
        fake_clocks="clock_step" in kinds,
        retry=given.retry,
    )
    folder = Path(given.keep or tempfile.mkdtemp(prefix="chaos-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if given.soak_minutes:
        code = soak(options, folder, given.soak_minutes * 60)
    else:
        code = _run(given, options, request, folder)
    if code == 0 and not given.keep:
        shutil.rmtree(folder)
    else:
        print(f"the journal and the logs are in {folder}", flush=True)
    return code


def _run(
    given: argparse.Namespace, options: SiteOptions, request: PlanRequest, folder: Path
) -> int:
    goal = Goal(
        faults=given.faults,
        records=given.records,
        limit_s=given.minutes * 60 * _LIMIT + 60,
        checkpoints=given.checkpoints,
        least_workers=request.least_workers,
        clean_letters=given.payloads == "plain",
        say=lambda line: print(line, flush=True),
    )
    with Site(options, folder, _values(given)) as site:
        try:
            outcome = carry_out(site, draw_plan(request) if given.faults else (), goal)
        except Exception:
            site.keep_broker_data()
            raise
        summary = summarise(outcome, site)
        if not summary["proven"]:
            site.keep_broker_data()
    print(table(summary), flush=True)
    return 0 if summary["proven"] else 1


def _values(given: argparse.Namespace) -> Values:
    if given.payloads == "hostile":
        return hostile_and_fuzzed(given.records, given.seed)
    if given.engine == "real":
        texts = [sample.message for sample in read_samples("holdout.jsonl")]
        return plain_values(tuple(text.replace("{", "(").replace("}", ")") for text in texts))
    return some_refused(plain_values()) if given.retry else plain_values()


def _possible(wanted: Sequence[str], engine: str) -> tuple[tuple[Kind, ...], dict[str, str]]:
    """The kinds that are possible here, and why the others are not."""
    left_out: dict[str, str] = {}
    if engine == "real":
        left_out |= dict.fromkeys(_FIXED_ONLY, "the real engine cannot be made to")
    if not can_mount():
        left_out |= dict.fromkeys(("worker_disk_full", "broker_disk_full"), "mounting needs root")
    if not FAKETIME.exists():
        left_out["clock_step"] = "libfaketime is not installed (Debian: faketime)"
    unknown = set(wanted) - set(KINDS)
    if unknown:
        raise SystemExit(f"no such kind: {', '.join(sorted(unknown))}")
    named = {name: why for name, why in left_out.items() if name in wanted}
    return tuple(kind for kind in KINDS if kind in wanted and kind not in left_out), named


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--seed", type=int, default=1)
    add("--faults", type=int, default=200, help="faults that must have an effect")
    add("--records", type=int, default=200_000, help="records at least")
    add("--minutes", type=float, default=15, help="the time over which the faults are spread")
    add("--rate", type=float, help="records a second; default: the records spread over the minutes")
    add("--workers", default="2-4", help="how many workers: N, or LEAST-MOST")
    add("--engine", choices=("fixed", "real"), default="fixed")
    add("--delivery", choices=("exactly_once", "at_least_once"), default="exactly_once")
    add("--protocol", choices=("cooperative", "range", "consumer"), default="cooperative")
    add("--payloads", choices=("plain", "hostile"), default="plain")
    add("--kinds", help="only these kinds of fault, separated by commas")
    add("--checkpoints", type=int, default=1, help="verifications while everything runs")
    add("--retry", action="store_true", help="delayed retry, with messages that need it")
    add("--soak-minutes", type=float, help="no faults: a steady load for this long")
    add(
        "--keep",
        help="folder for the journal and the logs (default: a temporary one, kept unless proven)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
