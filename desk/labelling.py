"""``clerk-desk label``: the desk on a file of messages or of tasks, without Kafka and for one local
user.

``clerk-trainer suggest`` runs as a process in the background. It starts with the desk, because the
features of the messages take a minute, and runs again after every 25 decisions. Without the trainer
labelling works as well, in a random order.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from desk.errors import Refused, SettingsError
from desk.service import circle, labelling, upkeep
from desk.service.context import Desk, Policy, open_desk
from desk.store.database import Database
from desk.store.migrate import migrate
from desk.web.server import serve
from desk.web.visit import WebOptions
from desk.work import BackgroundWork, Shift
from worker.common.process import start_up_frozen
from worker.common.review_files import ANSWERS_NEED
from worker.contract.digest import write_atomically
from worker.contract.errors import RecordRefused, TaxonomyError
from worker.contract.exchange import PRIVATE, read_suggestions, read_text
from worker.contract.taxonomy import Taxonomy

SUGGEST_EVERY = 25
"""Decisions after which suggestions are made again: as many messages as ``clerk-trainer suggest``
chooses together. Earlier, most of the new order would be the rest of the old one."""

_LOOK_EVERY_S = 0.5
_LONGEST_LINE = 10_000_000

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for. ``data`` is the folder of the database and of suggestions;
    ``tasks``: the file has tasks of clerk-trainer, so decisions on these are written."""

    messages: Path
    taxonomy: Path
    data: Path
    out: Path
    port: int
    message_column: str | None = None
    id_column: str | None = None
    tasks: bool = False


def label(wanted: Wanted, say: Say) -> None:
    """Serve the pages until SIGTERM or SIGINT, then write the labelled messages, or the decisions.
    Raises DeskStopped, Refused."""
    with _opened(wanted, say) as (desk, batch_id, message_column):
        suggester = Suggester(desk, batch_id, wanted, message_column, say)
        work = BackgroundWork("suggestions", suggester.run_once, lambda: None, _LOOK_EVERY_S)
        shift = Shift(desk.database, [] if wanted.tasks else [work], desk.clock)
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        options = WebOptions(port=wanted.port, batch=batch_id)
        try:
            with _served(desk, options) as address, start_up_frozen():
                say(f"Label them at {address}/review")
                say("Ctrl-C stops. Run the same command again to continue.")
                shift.start()
                while not stopping.is_set() and not shift.wait(0.2):
                    pass
        finally:
            shift.stop()
            suggester.stop()
            _write(desk, batch_id, wanted, say)


@contextmanager
def _served(desk: Desk, options: WebOptions) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            address = stack.enter_context(serve(desk, options))
        except SettingsError:
            raise SettingsError(
                f"{options.host}:{options.port} is taken: give another --port"
            ) from None
        yield address


def export_labelled(wanted: Wanted, say: Say) -> None:
    """Only write the labelled messages, or the decisions. Raises DeskStopped, Refused."""
    if not (wanted.data / "desk.db").is_file():
        raise SettingsError(f"{wanted.data}: has no labels yet: run the command without --export")
    with _opened(wanted, say) as (desk, batch_id, _):
        _write(desk, batch_id, wanted, say)


def _write(desk: Desk, batch_id: int, wanted: Wanted, say: Say) -> None:
    if wanted.tasks:
        export_decisions(desk, wanted.out, say)
    else:
        export(desk, batch_id, wanted.out, say)


def export_decisions(desk: Desk, out: Path, say: Say) -> None:
    """Write the decisions on the tasks of a file, and say what comes next."""
    found = circle.all_progress(desk)
    decided, tasks = (
        sum(getattr(each.progress, of) for each in found) for of in ("decided", "tasks")
    )
    if not decided:
        say("Nothing is decided yet.")
        return
    decisions = upkeep.batch_decisions(desk, [each.id for each in found])
    write_atomically(out, decisions, mode=PRIVATE)
    say(f"{out}: {decided:,} of {tasks:,} tasks are decided.")
    say(f"Next: give {quote(str(out))} to clerk-trainer with --decisions (label, prepare, propose)")


def export(desk: Desk, batch_id: int, out: Path, say: Say) -> None:
    """Write the labelled messages, and say what was done and what comes next."""
    done = labelling.write_labelled(desk, batch_id, out)
    none = f"; {done.none:,} fit no label and are left out" if done.none else ""
    if not done.labelled:
        say(f"Nothing is labelled yet{none}.")
        return
    drawn = f"{done.random:,} of them drawn at random"
    say(f"{out}: {done.labelled:,} labelled messages, {drawn}{none}.")
    pace = f"{done.seconds:.1f} s a decision (median)"
    followed = f"; {done.followed:,} of {done.suggested:,} suggestions were right"
    say(f"{pace}{followed if done.suggested else ''}.")
    counts = labelling.count_labels(desk, batch_id)
    if few := [f"{name} {count}" for name, count in counts.items() if count < labelling.LEAST]:
        say(f"Fewer than {labelling.LEAST} messages, too few to learn from: {', '.join(few)}.")
    say(f"Next: clerk-trainer start {quote(str(out))} --out first")


@contextmanager
def _opened(wanted: Wanted, say: Say) -> Iterator[tuple[Desk, int, str]]:
    """Open the database of a file of messages or tasks, and load what is new in it. Yields the
    desk, the batch, and the column of the message, "" for tasks."""
    try:
        taxonomy = Taxonomy.from_toml(wanted.taxonomy)
    except TaxonomyError as error:
        raise SettingsError(f"--taxonomy: {error}") from None
    found = None
    if not wanted.tasks:
        found = labelling.read_messages(wanted.messages, wanted.message_column, wanted.id_column)
    is_new = not (wanted.data / "desk.db").exists()
    if wanted.out.exists() and (is_new or not _is_ours(wanted)):
        raise SettingsError(
            f"{wanted.out}: exists, and does not come from {wanted.data}: give another --out"
        )
    wanted.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(f"sqlite:///{wanted.data / 'desk.db'}")
    try:
        migrate(database)
        desk = _open(database, taxonomy, wanted)
        if found is None:
            yield desk, _load_tasks(desk, wanted.messages, say), ""
        else:
            batch_id, added = labelling.load_messages(desk, found)
            _announce(found, desk, batch_id, added, say)
            yield desk, batch_id, found.message_column
    finally:
        database.close()


def is_task_file(path: Path) -> bool:
    """Whether a file has tasks of clerk-trainer (tasks/1) and not messages."""
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(_LONGEST_LINE))
    # A line of opening brackets is nested too deep for the parser.
    except (OSError, ValueError, RecursionError):
        return False  # reading it says what is wrong
    return isinstance(first, dict) and first.get("schema") == "tasks/1"


def _is_ours(wanted: Wanted) -> bool:
    """Whether the file at ``out`` looks like one that an earlier run wrote."""
    if wanted.tasks:
        with wanted.out.open(encoding="utf-8-sig", errors="replace") as file:
            return file.readline().startswith(",".join(ANSWERS_NEED))
    return labelling.is_labelled(wanted.out)


def _load_tasks(desk: Desk, path: Path, say: Say) -> int:
    """Load what is new in a file of tasks; return the batch to begin with."""
    try:
        text = read_text(path)
    except RecordRefused as error:
        raise Refused(str(error)) from None
    done = circle.load_task_file(desk, text, path.name)
    found = [each for each in circle.all_progress(desk) if each.id in done.batches]
    purposes = ", ".join(sorted({each.purpose for each in found}))
    decided = sum(each.progress.decided for each in found)
    more = f"; {decided:,} are decided" if decided else ""
    say(f"{path.name}: {done.new + done.known:,} tasks ({purposes}){more}.")
    return done.batches[0]


def _open(database: Database, taxonomy: Taxonomy, wanted: Wanted) -> Desk:
    try:
        return open_desk(database, taxonomy=taxonomy, policy=Policy())
    except SettingsError:
        raise SettingsError(
            f"{wanted.taxonomy} is not the taxonomy that {wanted.data} was begun with: give that "
            "file, or another --data and --out, or carry the decisions over: clerk-desk taxonomy "
            f"-s project.taxonomy={wanted.taxonomy} "
            f"-s database.url=sqlite:///{wanted.data / 'desk.db'}"
        ) from None


def _announce(found: labelling.Messages, desk: Desk, batch_id: int, added: int, say: Say) -> None:
    id_ = f"id {found.id_column!r}" if found.id_column else "ids made from the text"
    say(f"{found.name}: {found.found}; message {found.message_column!r}, {id_}")
    for note in found.notes:
        say(f"  {note}")
    decided = labelling.count_labelled(desk, batch_id)
    known = len(found.tasks) - added
    before = f", {added:,} of them new" if added and known else ""
    done = f"; {decided:,} are decided" if decided else ""
    say(f"{len(found.tasks):,} different messages{before}{done}.")


class Suggester:
    """Starts ``clerk-trainer suggest`` and stores what it suggests. For one thread."""

    def __init__(
        self, desk: Desk, batch_id: int, wanted: Wanted, message_column: str, say: Say
    ) -> None:
        self._desk = desk
        self._batch_id = batch_id
        self._out = wanted.out
        self._suggestions = wanted.data / "suggestions.jsonl"
        self._log = wanted.data / "suggest.log"
        # Not imported: programs share files, and the desk may be installed without the trainer.
        self._command = [
            *(sys.executable, "-m", "desk.leash", "trainer", "suggest", str(wanted.messages)),
            *("--taxonomy", str(wanted.taxonomy), "--labelled", str(wanted.out)),
            *("--out", str(self._suggestions), "--message-column", message_column),
        ]
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._at = 0  # decisions at which the next process starts
        self._failed = ""

    def run_once(self) -> int:
        """Start the process if it is due, and take in what it has written."""
        if self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._process.communicate()  # closes the pipe
                self._process = None
                self._take(code)
            return 0
        decided = labelling.count_labelled(self._desk, self._batch_id)
        if decided < self._at:
            return 0
        # The process reads the labels from the file, not from the database: programs share files.
        labelling.write_labelled(self._desk, self._batch_id, self._out)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                self._command,
                stdin=subprocess.PIPE,  # desk.leash ends the process when this is closed
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the desk, which then ends it
            )
        # From the last multiple: after a restart suggestions are made at once.
        self._at = (decided // SUGGEST_EVERY + 1) * SUGGEST_EVERY
        return 0

    def stop(self) -> None:
        """End the process. Nobody calls ``run_once`` any more."""
        if (process := self._process) is not None:
            process.terminate()
            process.communicate()

    def _take(self, code: int) -> None:
        why = self._problem() if code else self._apply()
        # Once, not after every 25 decisions: without the trainer each run fails alike.
        if why and why != self._failed:
            self._say(f"No suggestions: {why}. Labelling goes on without them.")
        self._failed = why

    def _problem(self) -> str:
        """Return the last line that the process wrote."""
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "clerk-trainer suggest ended without a word"

    def _apply(self) -> str:
        """Store the suggestions; return what is wrong with the file, "" if nothing is."""
        try:
            suggestions = read_suggestions(self._suggestions)
        except RecordRefused as error:
            return str(error)
        labelling.plan(self._desk, self._batch_id, suggestions)
        return ""
