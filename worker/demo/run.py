"""``clerk-worker demo``: the whole thing on one machine, as a stranger would first see it.

The worker it starts is the production worker, in a process of its own, with other settings.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from rich.markup import escape

from worker.contract.manifest_json import read_manifest
from worker.demo.base_model import BaseModelError, ensure_base_model
from worker.demo.broker import BrokerError, LocalBroker
from worker.demo.broker_config import free_port
from worker.demo.client import Publisher, Watcher, create_demo_topics
from worker.demo.keep import keep_open
from worker.demo.samples import Sample, adapter_dir, demo_samples
from worker.demo.screen import Screen
from worker.demo.streaming import Streaming
from worker.demo.worker_process import WorkerFailed, start_worker

INPUT, OUTPUT = "support.messages", "support.labels"
REVIEW, DEAD = "support.labels.review", "support.labels.dead"
_PARTITIONS = 4
_LIVE_MESSAGES = 60


def demo_model_settings() -> list[str]:
    """Return the settings, as flags, that name the demo's base model and adapter."""
    base = ensure_base_model(on_event=lambda line: print(line, file=sys.stderr))
    return [f"model.base='{base}'", f"model.adapter='{adapter_dir()}'"]


def run_demo(*, count: int, keep: bool, bootstrap_servers: str | None) -> int:
    """Show it. Returns the exit code: 0, 1 when something failed, 130 after Ctrl-C."""
    labels = read_manifest(adapter_dir()).taxonomy.names
    screen = Screen(labels)
    try:
        with _stopped_by_signals(), ExitStack() as stack:
            _run(screen, stack, demo_samples(count), keep, bootstrap_servers)
    except (BrokerError, BaseModelError, WorkerFailed) as error:
        screen.console.print(f"[red]the demo stopped:[/red] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        screen.console.print("\n[dim]stopped; nothing is left running[/dim]")
        return 0 if keep else 130
    return 0


def _run(
    screen: Screen,
    stack: ExitStack,
    samples: list[Sample],
    keep: bool,
    bootstrap_servers: str | None,
) -> None:
    began = time.monotonic()
    screen.console.print(
        "[bold]filing-clerk[/bold]: support messages in, one label of "
        f"{len(screen.labels)} out. Everything below runs on this machine.\n"
    )
    base = ensure_base_model(on_event=screen.say)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="filing-clerk-demo-")))
    broker = None
    if bootstrap_servers is None:
        broker = LocalBroker(port=free_port(), on_event=screen.say)
        stack.callback(broker.close)  # after the worker has ended
        bootstrap_servers = broker.bootstrap_servers
    # Before the broker: the worker imports vLLM while that starts.
    worker = stack.enter_context(
        start_worker(worker_settings(bootstrap_servers, base), folder / "worker.log")
    )
    if broker is not None:
        broker.start()
    topics = dict.fromkeys((INPUT, OUTPUT, REVIEW, DEAD), _PARTITIONS)
    create_demo_topics(bootstrap_servers, topics)
    publisher = Publisher(bootstrap_servers, INPUT)
    with screen.waiting("the worker starts: vLLM with the base model and the adapter (~20 s)"):
        worker.wait_until_ready("partitions.assigned")
    watcher = Watcher(bootstrap_servers, {OUTPUT: "output", REVIEW: "review", DEAD: "dead letter"})
    stack.callback(watcher.close)
    screen.say(f"ready after {time.monotonic() - began:.0f} s; publishing to {INPUT}\n")
    stream = Streaming(screen, publisher, watcher, worker.check)
    live, burst = samples[:_LIVE_MESSAGES], samples[_LIVE_MESSAGES:]
    with screen.streaming(len(samples)):
        live_s = stream.live(live)
        burst_s = stream.burst(burst)
    screen.summary(len(burst), burst_s, live_s)
    if keep:
        keep_open(screen, stream, publisher, watcher, worker, bootstrap_servers)
    else:
        _say_what_next(screen)


def worker_settings(bootstrap_servers: str, base: Path) -> Mapping[str, str]:
    """Return what the demo's worker is told, over the defaults."""
    return {
        "kafka.bootstrap_servers": f"'{bootstrap_servers}'",
        "kafka.group_id": "'demo'",
        "kafka.input_topics": f"'{INPUT}'",
        "kafka.output_topic": f"'{OUTPUT}'",
        "kafka.review_topic": f"'{REVIEW}'",
        "kafka.dead_letter_topic": f"'{DEAD}'",
        # It is started before the broker and the topics.
        "kafka.start_timeout_s": "120",
        "kafka.client.reconnect.backoff.max.ms": "250",
        "kafka.create_topics": "true",
        "kafka.topic_partitions": str(_PARTITIONS),
        "model.base": f"'{base}'",
        "model.adapter": f"'{adapter_dir()}'",
        "log.format": "'json'",
        "http.port": "0",
    }


def _say_what_next(screen: Screen) -> None:
    screen.console.print(
        "\n[bold]What to try next[/bold]\n"
        "  clerk-worker demo --keep                        leave it up and publish your own\n"
        '  clerk-worker classify --demo "my lamp is broken"  one message, no Kafka\n'
        "  clerk-worker config                             every setting and where it comes from\n"
        "  config/worker.toml                              to run it for real\n"
        "[dim](clerk-worker is in .venv/bin here)[/dim]",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, and let nothing interrupt the cleaning up after either."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {one: signal.signal(one, interrupt) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
