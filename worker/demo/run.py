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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.markup import escape

from worker.contract.manifest_json import read_manifest
from worker.demo.base_model import BaseModelError
from worker.demo.broker import BrokerError, LocalBroker
from worker.demo.broker_config import free_port
from worker.demo.client import Publisher, Watcher, count_records, create_demo_topics
from worker.demo.desk_process import start_desk
from worker.demo.keep import KeptOpen, say_what_stays
from worker.demo.models import DemoModel, ModelName, ensure_model
from worker.demo.program import ProgramFailed, start_worker
from worker.demo.samples import Sample, adapter_dir, demo_samples
from worker.demo.screen import Screen
from worker.demo.streaming import Streaming

INPUT, OUTPUT = "support.messages", "support.labels"
REVIEW, DEAD = "support.labels.review", "support.labels.dead"
CORRECTIONS = "support.labels.corrections"
KINDS = {OUTPUT: "output", REVIEW: "review", DEAD: "dead letter", CORRECTIONS: "correction"}
WORKER_LOG = "worker.log"
_PARTITIONS = 4
_LIVE_MESSAGES = 60


def demo_model_settings() -> list[str]:
    """Return the settings, as flags, that name the demo's base model and adapter."""
    model = ensure_model("adapter", lambda line: print(line, file=sys.stderr))
    return [f"{key}={value}" for key, value in model.settings().items()]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be shown.

    ``count`` sample messages are published, and labelled by ``model``. ``keep``: everything stays
    up until Ctrl-C. ``desk``: with the desk, which implies ``keep``. ``folder``: where Kafka's and
    the desk's files stay for the next time; None is a temporary one. ``bootstrap_servers``: this
    cluster in place of one's own.
    """

    count: int
    model: ModelName = "adapter"
    keep: bool = False
    desk: bool = False
    folder: Path | None = None
    bootstrap_servers: str | None = None


def run_demo(wish: Wish) -> int:
    """Show it. Returns the exit code: 0, 1 when something failed, 130 after Ctrl-C."""
    screen = Screen(read_manifest(adapter_dir()).taxonomy.names)
    try:
        with _stopped_by_signals(), ExitStack() as stack:
            _run(screen, stack, wish)
    except (BrokerError, BaseModelError, ProgramFailed) as error:
        screen.console.print(f"[red]the demo stopped:[/red] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        kept = f"; its files are in {wish.folder}" if wish.folder else ""
        said = f"\n[dim]stopped; nothing is left running{escape(kept)}[/dim]"
        screen.console.print(said, soft_wrap=True)
        return 0 if wish.keep or wish.desk else 130
    return 0


def _run(screen: Screen, stack: ExitStack, wish: Wish) -> None:
    began = time.monotonic()
    screen.console.print(
        "[bold]filing-clerk[/bold]: support messages in, one label of "
        f"{len(screen.labels)} out. Everything below runs on this machine.\n"
    )
    model = ensure_model(wish.model, screen.say)
    folder = _folder(stack, wish.folder)
    broker = None
    servers = wish.bootstrap_servers
    if servers is None:
        kept = folder / "kafka" if wish.folder else None
        broker = LocalBroker(kept, port=free_port(), on_event=screen.say)
        stack.callback(broker.close)  # after the programs have ended
        servers = broker.bootstrap_servers
    # Before the broker: the worker imports vLLM while that starts.
    settings = worker_settings(servers, model)
    worker = stack.enter_context(start_worker(settings, folder / WORKER_LOG))
    if broker is not None:
        broker.start()
    create_demo_topics(servers, dict.fromkeys((INPUT, OUTPUT, REVIEW, DEAD), _PARTITIONS))
    create_demo_topics(servers, {CORRECTIONS: 1})
    publisher = Publisher(servers, INPUT)
    with screen.waiting(f"the worker starts: {model.starts}"):
        worker.wait_until_ready("partitions.assigned")
    watcher = Watcher(servers, KINDS)
    stack.callback(watcher.close)
    stream = Streaming(screen, publisher, watcher, worker.check)
    samples = demo_samples(wish.count)
    if before := count_records(servers, INPUT):
        screen.say(f"{INPUT} holds {before} messages from before; none is added")
    else:
        screen.say(f"ready after {time.monotonic() - began:.0f} s; publishing to {INPUT}\n")
        _show_samples(screen, stream, samples)
    if not (wish.keep or wish.desk):
        _say_what_next(screen)
        return
    topics = {"output_topic": OUTPUT, "review_topic": REVIEW, "corrections_topic": CORRECTIONS}
    taxonomy = read_manifest(adapter_dir()).taxonomy
    kept_open = KeptOpen(
        screen,
        stream,
        {sample.id: sample for sample in samples},
        lambda: stack.enter_context(start_desk(servers, topics, taxonomy, folder)),
    )
    if wish.desk:
        kept_open.show_desk()
    else:
        say_what_stays(screen, servers, worker)
    kept_open.run(publisher, watcher, worker)


def _folder(stack: ExitStack, kept: Path | None) -> Path:
    if kept is None:
        made = tempfile.TemporaryDirectory(prefix="filing-clerk-demo-")
        return Path(stack.enter_context(made))
    kept.mkdir(parents=True, exist_ok=True)
    (kept / WORKER_LOG).unlink(missing_ok=True)  # what it says of another start misleads
    return kept.absolute()


def _show_samples(screen: Screen, stream: Streaming, samples: list[Sample]) -> None:
    live, burst = samples[:_LIVE_MESSAGES], samples[_LIVE_MESSAGES:]
    with screen.streaming(len(samples)):
        live_s = stream.live(live)
        burst_s = stream.burst(burst)
    screen.summary(len(burst), burst_s, live_s)


def worker_settings(bootstrap_servers: str, model: DemoModel) -> Mapping[str, str]:
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
        **model.settings(),
        "log.format": "'json'",
        "http.port": "0",
    }


def _say_what_next(screen: Screen) -> None:
    screen.console.print(
        "\n[bold]What to try next[/bold]\n"
        "  clerk-desk demo                                 decide what was in doubt\n"
        "  clerk-worker demo --model encoder               many times as fast, without vLLM\n"
        "  clerk-worker demo --keep                        leave it up and publish your own\n"
        '  clerk-worker classify --demo "my lamp is broken"  one message, no Kafka\n'
        "  clerk-worker check-config                       every setting and where it comes from\n"
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
