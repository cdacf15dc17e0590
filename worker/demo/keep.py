"""``clerk-worker demo --keep``: everything stays up, and a person publishes their own messages."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping

from worker.demo.client import Publisher, Watcher
from worker.demo.desk_process import DeskProcess, show_in_browser
from worker.demo.program import Program
from worker.demo.samples import Sample
from worker.demo.screen import Screen
from worker.demo.streaming import Streaming

_OPEN_DESK = "desk"
"""What is typed to open the desk: no message that somebody would publish."""


class KeptOpen:
    """What stays up until Ctrl-C: what arrives is shown, and what is typed is published.

    ``samples`` are the messages that were published, by their ids; ``open_desk`` starts the desk.
    """

    def __init__(
        self,
        screen: Screen,
        stream: Streaming,
        samples: Mapping[str, Sample],
        open_desk: Callable[[], DeskProcess],
    ) -> None:
        self._screen = screen
        self._stream = stream
        self._samples = samples
        self._open_desk = open_desk
        self._desk: DeskProcess | None = None

    def show_desk(self) -> None:
        """Start the desk, if it does not run, and say where it is and what to press there."""
        if self._desk is None:
            with self._screen.waiting("the desk starts: its database, its pages"):
                self._desk = self._open_desk()
                waiting = self._desk.wait_for_messages(self._screen.tally.outcomes["review"])
        else:
            waiting = self._desk.waiting()
        self._screen.console.print(
            f"\n[bold]{waiting} messages wait at the desk: {self._desk.url}[/bold]\n"
            "  A key decides: the one on a label's button; n: none fits, u: undo, ?: all keys.\n"
            "  Two seconds later the decision is a record that routers read, and shown here.\n",
            highlight=False,
            soft_wrap=True,
        )
        show_in_browser(self._desk.url)

    def run(self, publisher: Publisher, watcher: Watcher, worker: Program) -> None:
        """Show what arrives until Ctrl-C. Raises ProgramFailed when a program has ended."""
        typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        if sys.stdin.isatty():
            offer = "" if self._desk else f" (or {_OPEN_DESK}, to open the desk and decide)"
            self._screen.console.print(f"Type a message here and press Enter{offer}:")
            threading.Thread(target=_read_lines, args=(typed,), daemon=True).start()
        while True:
            worker.check()
            if self._desk is not None:
                self._desk.check()
            while not typed.empty():
                self._act_on(typed.get(), publisher)
            for seen in watcher.poll(0.2):
                if seen.kind == "correction":
                    self._screen.corrected(seen, self._samples.get(seen.message_id))
                else:
                    self._stream.show(seen)

    def _act_on(self, line: str, publisher: Publisher) -> None:
        if line == _OPEN_DESK:
            self.show_desk()
        else:
            publisher.publish(f"typed-{time.time_ns()}", line)


def say_what_stays(screen: Screen, bootstrap_servers: str, worker: Program) -> None:
    """Tell where everything is, for other programs."""
    screen.console.print(
        f"\n[bold]Kafka stays up at {bootstrap_servers}[/bold] until Ctrl-C. "
        "From another terminal, with any Kafka client:\n"
        f'  echo \'{{"id": "1", "message": "where is my parcel?"}}\' | '
        f"kcat -P -b {bootstrap_servers} -t support.messages\n"
        f"  kcat -C -b {bootstrap_servers} -t support.labels -X isolation.level=read_committed\n"
        f"The worker's metrics are at {worker.url}/metrics, what it is at {worker.url}/info\n"
        "What it was unsure of, people decide at the desk: clerk-desk demo shows it all at once.",
        highlight=False,
        soft_wrap=True,
    )


def _read_lines(typed: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        if line.strip():
            typed.put(line.strip())
