"""``clerk-worker replay`` with an engine of fixed service time: real Kafka, no model.

    python -m tests.chaos.fake_replay JSON

JSON has ``settings`` (a mapping), ``id`` and ``criteria`` (the fields of Criteria).
CHAOS_SERVICE_S is the engine's seconds a message. Prints the result as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from tests.chaos.fake_worker import open_fake
from worker.common.logs import configure_logging
from worker.contract.records import Replay
from worker.contract.timestamps import rfc3339_now
from worker.errors import WorkerStopped
from worker.offline.replay import ReplayRequest, run_replay
from worker.offline.replay_plan import Criteria
from worker.settings import load_settings


def main(text: str) -> int:
    given = json.loads(text)
    flags = [f"{name}='{value}'" for name, value in given["settings"].items()]
    settings = load_settings(flags=flags).settings
    configure_logging("json", "info")
    chosen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given["criteria"].items()
    }
    request = ReplayRequest(
        Replay(given["id"], rfc3339_now(), "a test"),
        Criteria(**chosen),
        None,
        "current",
        execute=True,
    )
    try:
        print(json.dumps(asdict(run_replay(settings, request, open_fake))))
    except WorkerStopped as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
