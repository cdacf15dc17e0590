"""Look at the dashboard without Grafana: workers work for some minutes, and every panel is drawn.

    python -m tests.rules.picture dashboard.svg [--fake]
    rsvg-convert dashboard.svg -o dashboard.png

Two workers with the demo's model, a burst, unreadable messages, and one worker that goes. Tells
which panels have nothing to show, and fails where that is one that has: those of a GPU, a cascade
and the desk have not, and with an engine of fixed service time (--fake) vLLM's own. Needs
Prometheus.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.harness import FAKE_WORKER, REAL_WORKER, Arena
from tests.rules.draw import Moment, draw
from tests.rules.expressions import VARIABLES
from tests.rules.live import scraping
from tests.support.hostile import hostile_values
from worker.demo.base_model import ensure_base_model
from worker.demo.broker import LocalBroker
from worker.demo.samples import adapter_dir, read_samples

STEADY = 8  # messages a second
BURST = 1500
PHASE_S = 60
NOT_HERE = {
    *("Answers by stage of a cascade", "GPU busy", "GPU temperature and power", "GPU errors"),
    *("Accuracy in service", "Waits for people", "On its way"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the scene and write the picture."""
    out = Path(arguments[0])
    prometheus = shutil.which("prometheus")
    assert prometheus is not None, (
        "Prometheus is not installed (Debian: apt-get install prometheus)"
    )
    command: tuple[str, ...] = FAKE_WORKER
    model: dict[str, str] = {}
    if "--fake" not in arguments:
        command = REAL_WORKER
        model = {"model.base": f"'{ensure_base_model()}'", "model.adapter": f"'{adapter_dir()}'"}
    with LocalBroker() as broker, ExitStack() as stack:
        arena = Arena(broker.bootstrap_servers, stack, command, model)
        workers = []
        for _ in range(2):
            workers.append(arena.start_worker())
            workers[-1].wait_until_ready("partitions.assigned")
        targets = {
            f"clerk-{n}": (worker.url or "").removeprefix("http://")
            for n, worker in enumerate(workers)
        }
        watching = stack.enter_context(scraping(prometheus, arena.folder, targets))
        start = time.time()
        sent = _publish(arena, PHASE_S)
        arena.publish([*_texts(BURST), *hostile_values(BURST // 10)])
        sent += BURST + BURST // 10 + _publish(arena, PHASE_S)
        assert arena.stop(workers[1]) == 0
        sent += _publish(arena, PHASE_S)
        arena.wait_for(sent)
        time.sleep(6)  # the lag is renewed every 5 s
        end = time.time()
        variables = {
            **VARIABLES,
            "$__rate_interval": "15s",
            "$__range": f"{end - start:.0f}s",
            "$__interval_ms": "2000",
            "$__interval": "2s",
        }
        picture, empty = draw(watching, Moment(start + 15, end, 2.0, variables))
    out.write_text(picture, encoding="utf-8")
    print(f"{out}; nothing to show: {', '.join(empty) or 'none'}")
    return 1 if set(empty) - NOT_HERE else 0


def _publish(arena: Arena, seconds: int) -> int:
    for second in range(seconds):
        values: list[bytes | None] = list(_texts(STEADY, second * STEADY))
        arena.publish([*values, *([None] if second % 7 == 0 else [])])
        time.sleep(1)
    return seconds * STEADY + -(-seconds // 7)


def _texts(count: int, first: int = 0) -> list[bytes]:
    samples = read_samples("holdout.jsonl")
    return [
        json.dumps({"id": str(n), "message": samples[n % len(samples)].message}).encode()
        for n in range(first, first + count)
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
