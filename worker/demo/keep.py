"""``clerk-worker demo --keep``: everything stays up, and a person publishes their own messages."""

from __future__ import annotations

import queue
import sys
import threading
import time

from worker.demo.client import Publisher, Watcher
from worker.demo.screen import Screen
from worker.demo.streaming import Streaming
from worker.demo.worker_process import WorkerProcess


def keep_open(
    screen: Screen,
    stream: Streaming,
    publisher: Publisher,
    watcher: Watcher,
    worker: WorkerProcess,
    bootstrap_servers: str,
) -> None:
    """Show results until Ctrl-C; on a terminal, publish each line that is typed."""
    screen.console.print(
        f"\n[bold]Kafka stays up at {bootstrap_servers}[/bold] until Ctrl-C. "
        "From another terminal, with any Kafka client:\n"
        f'  echo \'{{"id": "1", "message": "where is my parcel?"}}\' | '
        f"kcat -P -b {bootstrap_servers} -t support.messages\n"
        f"  kcat -C -b {bootstrap_servers} -t support.labels -X isolation.level=read_committed\n"
        f"The worker's metrics are at {worker.url}/metrics, what it is at {worker.url}/info",
        highlight=False,
        soft_wrap=True,
    )
    typed: queue.SimpleQueue[str] = queue.SimpleQueue()
    if sys.stdin.isatty():
        screen.console.print("\nOr type a message here and press Enter:")
        threading.Thread(target=_read_lines, args=(typed,), daemon=True).start()
    while True:
        worker.check()
        while not typed.empty():
            publisher.publish(f"typed-{time.time_ns()}", typed.get())
        for seen in watcher.poll(0.2):
            stream.show(seen)


def _read_lines(typed: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        if line.strip():
            typed.put(line.strip())
