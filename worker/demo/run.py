"""``clerk-worker demo``: the whole system on one machine. Worker and desk are the production
programs, in separate processes."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from rich.markup import escape

from worker.common.base_model import BaseModelError
from worker.contract.taxonomy import Taxonomy
from worker.demo.broker import LocalBroker
from worker.demo.client import Publisher, Watcher, count_records, create_demo_topics
from worker.demo.kafka_files import BrokerError, free_port, port_is_free
from worker.demo.models import Sample, default_model, ensure_model
from worker.demo.plan import PARTITIONS, Plan, Wish, make_plan
from worker.demo.program import Program, ProgramFailed, start_program, start_worker
from worker.demo.screen import Screen, Streaming
from worker.errors import SettingsError

WORKER_LOG = "worker.log"
_LIVE_MESSAGES = 60

_NEXT = (
    ("clerk-desk demo", "review doubtful labels"),
    ("clerk-worker demo --model encoder", "no vLLM, many times as fast"),
)
_NEXT_LIGHT = (
    ("make demo", "the same by a language model (6 GB)"),
    ("make desk-demo", "and with the desk: review doubtful labels"),
)
_NEXT_ALWAYS = (
    ("clerk-worker demo --keep", "publish your own messages"),
    ("clerk-worker demo --model DIR -i FILE", "your own model, on your own file"),
    ('clerk-worker classify --demo "my lamp broke"', "one message, without Kafka"),
    ("clerk-worker check-config", "every setting with its origin"),
    ("config/worker.toml", "settings for production"),
)

# Typing this opens the desk; nobody would publish it as a message.
_OPEN_DESK = "desk"

_USUAL_PORT = 8090
_START_S = 120.0
_OPEN = re.compile(r'^clerk_desk_items\{state="open"\} (\S+)$', re.MULTILINE)
_INSTALL = "\nThe desk's packages are missing: in the checkout, pip install -e '.[desk]'"


def demo_model_settings() -> list[str]:
    """Return settings for the demo's model and its base, as flags. Raises SettingsError."""
    try:
        model = ensure_model(default_model(), lambda line: print(line, file=sys.stderr))
    except BaseModelError as error:
        raise SettingsError(f"the demo's model: {error}") from error
    return [f"{key}={value}" for key, value in model.settings().items()]


def run_demo(wish: Wish) -> int:
    """Run the demo. Returns the exit code: 0, 1 after a failure, 130 after Ctrl-C. Raises
    SettingsError and AdapterRefused before anything starts."""
    plan = make_plan(wish)
    screen = Screen(plan.manifest.taxonomy.names)
    try:
        with _stopped_by_signals(), ExitStack() as stack:
            _run(screen, stack, plan)
    except (BrokerError, BaseModelError, ProgramFailed) as error:
        screen.console.print(f"[red]the demo stopped:[/red] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        kept = f"; its files are in {wish.folder}" if wish.folder else ""
        said = f"\n[dim]stopped; nothing is left running{escape(kept)}[/dim]"
        screen.console.print(said, soft_wrap=True)
        return 0 if wish.keep or wish.desk else 130
    return 0


def _run(screen: Screen, stack: ExitStack, plan: Plan) -> None:
    began = time.monotonic()
    wish = plan.wish
    screen.console.print(
        "[bold]filing-clerk[/bold]: support messages in, one label of "
        f"{len(screen.labels)} out. Everything below runs on this machine.\n"
    )
    model = plan.make_model(screen.say)
    folder = _folder(stack, wish.folder)
    broker = None
    servers = plan.servers
    if servers is None:
        kept = folder / "kafka" if wish.folder else None
        broker = LocalBroker(kept, port=free_port(), on_event=screen.say)
        # Entered before the worker, so that the broker closes after it: a worker drains to Kafka.
        stack.callback(broker.close)
        servers = broker.bootstrap_servers
    # Before the broker, so that the worker imports vLLM while the broker starts.
    worker = stack.enter_context(start_worker(plan.flags(servers, model), folder / WORKER_LOG))
    if broker is not None:
        broker.start()
    results = [topic for topic in plan.kinds if topic != plan.corrections]
    create_demo_topics(servers, dict.fromkeys((plan.topic, *results), PARTITIONS))
    create_demo_topics(servers, {plan.corrections: 1})
    publisher = Publisher(servers, plan.topic, plan.settings.records.text_fields[0])
    with screen.waiting(f"starting the worker: {model.starts}"):
        worker.wait_until_ready("partitions.assigned")
    watcher = Watcher(servers, plan.kinds)
    stack.callback(watcher.close)
    stream = Streaming(screen, publisher, watcher, worker.check)
    if before := count_records(servers, plan.topic):
        screen.say(f"{plan.topic} has {before} messages from an earlier run; publishing no more")
    else:
        if plan.left_out:
            screen.say(f"{plan.left_out} rows have no message and are left out")
        screen.say(f"ready after {time.monotonic() - began:.0f} s; publishing to {plan.topic}\n")
        _show_samples(screen, stream, plan.samples)
    if not (wish.keep or wish.desk):
        _say_what_next(screen)
        return
    taxonomy = plan.manifest.taxonomy
    kept_open = KeptOpen(
        screen,
        stream,
        {sample.id: sample for sample in plan.samples},
        lambda: stack.enter_context(start_desk(servers, plan.desk_topics, taxonomy, folder)),
    )
    if wish.desk:
        kept_open.show_desk()
    else:
        say_what_stays(screen, servers, plan, worker)
    kept_open.run(publisher, watcher, worker)


def _folder(stack: ExitStack, kept: Path | None) -> Path:
    if kept is None:
        made = tempfile.TemporaryDirectory(prefix="filing-clerk-demo-")
        return Path(stack.enter_context(made))
    kept.mkdir(parents=True, exist_ok=True)
    (kept / WORKER_LOG).unlink(missing_ok=True)  # an earlier run's events would be misread
    return kept.absolute()


def _show_samples(screen: Screen, stream: Streaming, samples: list[Sample]) -> None:
    live, burst = samples[:_LIVE_MESSAGES], samples[_LIVE_MESSAGES:]
    with screen.streaming(len(samples)):
        live_s = stream.live(live)
        burst_s = stream.burst(burst)
    screen.summary(len(burst), burst_s, live_s)


def _say_what_next(screen: Screen) -> None:
    lines = _NEXT if find_spec("vllm") else _NEXT_LIGHT
    screen.console.print("\n[bold]What to try next[/bold]")
    for command, what in (*lines, *_NEXT_ALWAYS):
        screen.console.print(f"  {command:45} {what}", highlight=False, soft_wrap=True)
    folder, here = Path(sys.executable).parent, Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    screen.console.print(f"[dim](clerk-worker is in {shown})[/dim]", highlight=False)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, and let no further signal interrupt the clean-up."""

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


class KeptOpen:
    """Runs until Ctrl-C: shows results, publishes typed messages, and opens the desk.

    ``samples`` are the published messages by id; ``open_desk`` starts the desk.
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
        """Start the desk, if it does not run, and print its address and keys."""
        if self._desk is None:
            with self._screen.waiting("starting the desk: database and pages"):
                self._desk = self._open_desk()
                waiting = self._desk.wait_for_messages(self._screen.tally.outcomes["review"])
        else:
            waiting = self._desk.waiting()
        self._screen.console.print(
            f"\n[bold]{waiting} messages wait for review: {self._desk.url}[/bold]\n"
            "  Press the key on a label's button; n: none fits, u: undo, ?: all keys.\n"
            "  Two seconds later the decision is published for routers, and shown here.\n",
            highlight=False,
            soft_wrap=True,
        )
        show_in_browser(self._desk.url)

    def run(self, publisher: Publisher, watcher: Watcher, worker: Program) -> None:
        """Show results until Ctrl-C. Raises ProgramFailed if a program ends."""
        typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        if sys.stdin.isatty():
            offer = "" if self._desk else f" (or {_OPEN_DESK}, to open the desk)"
            self._screen.console.print(f"Type a message here and press Enter{offer}:")
            threading.Thread(target=_read_lines, args=(typed,), daemon=True).start()
        while True:
            worker.check()
            if self._desk is not None:
                self._desk.program.check()
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


def say_what_stays(screen: Screen, bootstrap_servers: str, plan: Plan, worker: Program) -> None:
    """Print the addresses of broker and worker, and how to write and read."""
    text_field = plan.settings.records.text_fields[0]
    message = json.dumps({"id": "1", text_field: "where is my parcel?"})
    kafka = plan.settings.kafka
    results = " ".join(filter(None, (kafka.output_topic, kafka.review_topic)))
    screen.console.print(
        f"\n[bold]Kafka runs at {bootstrap_servers}[/bold] until Ctrl-C. "
        "From another terminal, with any Kafka client:\n"
        f"  echo {shlex.quote(message)} | kcat -P -b {bootstrap_servers} -t {plan.topic}\n"
        f"  kcat -b {bootstrap_servers} -X isolation.level=read_committed "
        f"-X auto.offset.reset=earliest -G router {results}\n"
        f"Records without a label (dead letters) are on {kafka.dead_letter_topic}\n"
        f"The worker's metrics are at {worker.url}/metrics, its adapters at {worker.url}/info\n"
        "To review doubtful labels at the desk: clerk-desk demo",
        highlight=False,
        markup=True,
        soft_wrap=True,
    )


def _read_lines(typed: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        if line.strip():
            typed.put(line.strip())


class DeskProcess:
    """A running ``clerk-desk run`` on loopback, without sign-in."""

    def __init__(self, program: Program, metrics_url: str) -> None:
        self.program = program
        self._metrics_url = metrics_url
        self.url = program.logged("desk.started", "address") or ""

    def waiting(self) -> int:
        """Return the number of messages that wait for review."""
        with urllib.request.urlopen(self._metrics_url, timeout=10) as answer:  # noqa: S310
            found = _OPEN.search(answer.read().decode("utf-8"))
        return int(float(found[1])) if found else 0

    def wait_for_messages(self, count: int) -> int:
        """Wait until ``count`` messages can be reviewed; return their number."""
        until = time.monotonic() + 60
        while (found := self.waiting()) < count and time.monotonic() < until:
            self.program.check()
            time.sleep(0.2)
        return found


@contextmanager
def start_desk(
    bootstrap_servers: str, topics: Mapping[str, str], taxonomy: Taxonomy, folder: Path
) -> Iterator[DeskProcess]:
    """Migrate a database in ``folder`` and start the desk on it; stop it at the end. ``topics`` are
    settings of its section kafka. Raises ProgramFailed."""
    labels = folder / "taxonomy.toml"
    labels.write_text(_toml(taxonomy), encoding="utf-8")
    settings = desk_settings(bootstrap_servers, topics, labels, folder / "desk.db")
    log_path = folder / "desk.log"
    log_path.unlink(missing_ok=True)  # an earlier run's events would be misread
    with start_program(
        "the desk's migration", ("-m", "desk", "migrate"), settings, log_path
    ) as migration:
        try:
            migration.wait_until_done(_START_S)
        except ProgramFailed as error:
            hint = "" if "ModuleNotFoundError" not in str(error) else _INSTALL
            raise ProgramFailed(f"{error}{hint}") from None
    with start_program("the desk", ("-m", "desk", "run"), settings, log_path) as program:
        program.wait_for("desk.started", _START_S)
        yield DeskProcess(program, f"http://127.0.0.1:{settings['web.metrics_port']}/metrics")


def desk_settings(
    bootstrap_servers: str, topics: Mapping[str, str], labels: Path, database: Path
) -> dict[str, str]:
    """Return the settings of the demo's desk that differ from the defaults: it has a single
    reviewer."""
    port = _USUAL_PORT if port_is_free(_USUAL_PORT) else free_port()
    return {
        "project.taxonomy": str(labels),
        "database.url": f"sqlite:///{database}",
        "kafka.bootstrap_servers": bootstrap_servers,
        **{f"kafka.{name}": topic for name, topic in topics.items()},
        "kafka.create_topics": "true",
        "kafka.client.log_level": "0",
        # With a single reviewer a second opinion would never come.
        "review.double_share": "0",
        "review.audit_double_share": "0",
        "review.publish_delay_s": "2",
        "audit.share": "0.05",
        "web.port": str(port),
        "web.metrics_port": str(free_port()),
        "log.format": "json",
    }


def show_in_browser(url: str) -> None:
    """Open a page in the user's browser, if there is one.

    Without a display the standard library would open a text browser in this terminal.
    """
    seen = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if seen and sys.stdout.isatty():
        webbrowser.open(url)


def _toml(taxonomy: Taxonomy) -> str:
    """Write a taxonomy in its file's form: a JSON string is also a TOML string."""

    def pair(name: str, text: str) -> str:
        return f"{name} = {json.dumps(text, ensure_ascii=False)}"

    lines = [pair(name, getattr(taxonomy, name)) for name in ("name", "version", "description")]
    for label in taxonomy.labels:
        lines += ["", "[[labels]]", pair("name", label.name)]
        lines.append(pair("description", label.description))
    return "\n".join(lines) + "\n"
