"""The steps of ``start``, in order, in one folder: which are done, which have to be done again.

Each step is a command of this program, run as it is printed, so that it can be repeated by hand.
Commands run in this process: a command line goes through the same parser either way, and six
processes would import PyTorch and scikit-learn six times, a third of the time for 300 messages.
What a separate process would add, surviving a kill, comes from the folder: a step writes its result
last and at once, and its key before it begins. A step is done if its result is there and the key is
that of its command and inputs, so a kill at any moment leaves a step either done or to be done.
"""

from __future__ import annotations

import fcntl
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from trainer.artifacts.files import Record, RecordFile
from trainer.errors import BadInput
from worker.contract.digest import sha256_bytes, sha256_file, sha256_json, write_atomically

_LOCK = ".start.lock"


class Begun(Record):
    """A step that was begun: its key, its command's words, the digests of its inputs, and how long
    it took, if it has finished."""

    key: str
    words: tuple[str, ...]
    inputs: dict[str, str]
    seconds: float | None


class ChainRecord(Record):
    """``start.json``: the steps that were begun, by name, the digests of files that were written
    for people to edit, as they were written, and the store that was taken over from an earlier
    month. Holds no message's text."""

    schema_id: Literal["start/1"] = Field("start/1", alias="schema")
    steps: dict[str, Begun]
    written: dict[str, str]
    store: str | None = None


STATE = RecordFile("start.json", ChainRecord, "clerk-trainer start")


@dataclass(frozen=True, slots=True)
class Step:
    """A command and its result; ``of`` tells several with one command apart.

    ``words`` are the command's, its name first. ``inputs`` are the digests of files that it reads
    and that no earlier step wrote, by name. ``result`` is the file that it writes last, ``made``
    all that it writes, removed before it is done again with other words or inputs. ``may_fail`` is
    whether exit code 3, a verdict of no, is a result too.
    """

    words: tuple[str | Path, ...]
    result: Path
    made: tuple[Path, ...] = ()
    of: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    may_fail: bool = False

    @property
    def name(self) -> str:
        """The command's name, and what it is of."""
        return f"{self.words[0]} {self.of}".strip()

    @property
    def arguments(self) -> list[str]:
        """The command line without the program."""
        return [str(word) for word in self.words]

    @property
    def command(self) -> str:
        """The command line, to be pasted into a shell."""
        return shlex.join(("clerk-trainer", *self.arguments))


@dataclass(frozen=True, slots=True)
class Planned:
    """A step, the key of its command and everything before it, and whether it is done."""

    step: Step
    key: str
    done: bool
    seconds: float | None


class Folder:
    """The folder of a chain, and its state. Raises BadInput if that cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        state = STATE.read_if_present(path)
        self._steps: dict[str, Begun] = dict(state.steps) if state else {}
        self._written: dict[str, str] = dict(state.written) if state else {}
        self.store: str | None = state.store if state else None

    def write(self, path: Path, text: str) -> bool:
        """Write a file for people to edit; return False, and leave it, if it was edited since it
        was written here."""
        data = text.encode("utf-8")
        if path.is_file() and sha256_file(path) != self._written.get(path.name):
            return False
        self._written[path.name] = sha256_bytes(data)
        self._save()
        write_atomically(path, data)
        return True

    def plan(self, steps: Sequence[Step]) -> list[Planned]:
        """Return the steps with their keys. A step after one that is not done is not done."""
        planned: list[Planned] = []
        key, done = "", True
        for step in steps:
            # With the key of the step before, so that a change makes all later steps due.
            key = sha256_json([key, self._words(step), dict(step.inputs)])
            noted = self._steps.get(step.name)
            done = done and noted is not None and noted.key == key and step.result.is_file()
            planned.append(Planned(step, key, done, noted.seconds if noted else None))
        return planned

    def finished_before(self, planned: Planned) -> bool:
        """Whether a step that is not done was finished with other inputs."""
        noted = self._steps.get(planned.step.name)
        return noted is not None and noted.key != planned.key and planned.step.result.is_file()

    def changes(self, planned: Sequence[Planned]) -> list[str]:
        """Return what differs from the last run in the commands and inputs of the steps."""
        found: list[str] = []
        for each in planned:
            noted = self._steps.get(each.step.name)
            if noted is None or noted.key == each.key:
                continue
            found += _compare_inputs(noted.inputs, each.step.inputs)
            found += _compare_words(each.step.name, noted.words, self._words(each.step))
        return list(dict.fromkeys(found))

    @contextmanager
    def doing(self, planned: Planned) -> Iterator[None]:
        """Note the key of a step that begins, and how long it took if no exception ends it. Earlier
        results are removed first; what a killed attempt with the same key left stays, to be
        resumed."""
        step = planned.step
        noted = self._steps.get(step.name)
        if noted is None or noted.key != planned.key or step.result.is_file():
            for path in step.made:
                _remove(path)
        for path in step.made:  # what a killed attempt was writing, with messages
            for leftover in path.parent.glob(f".{path.name}.*"):
                _remove(leftover)
        self._note(planned, None)
        began = time.monotonic()
        yield
        self._note(planned, round(time.monotonic() - began, 1))

    def _note(self, planned: Planned, seconds: float | None) -> None:
        step = planned.step
        self._steps[step.name] = Begun(
            key=planned.key,
            words=tuple(self._words(step)),
            inputs=dict(step.inputs),
            seconds=seconds,
        )
        self._save()

    def _save(self) -> None:
        STATE.write(self.path, ChainRecord(steps=self._steps, written=self._written,
                                           store=self.store))  # fmt: skip

    def _words(self, step: Step) -> list[str]:
        """Return a command's words, the same from any working directory: paths in this folder
        start with it as ".", and others are their names, since their content is in ``inputs``."""
        here = self.path.resolve()

        def place(path: Path) -> str:
            whole = path.resolve()
            inside = whole.is_relative_to(here)
            return f"./{whole.relative_to(here)}" if inside else whole.name

        return [place(word) if isinstance(word, Path) else word for word in step.words]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Make the folder and hold it for this process. Raises BadInput if another one holds it, or it
    cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o750)  # whatever the umask is: the folder will hold messages
        file = (path / _LOCK).open("a")
    except OSError as error:
        raise BadInput(f"--out {path}: {error.strerror}: choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(
                f"--out {path}: another clerk-trainer start is running in this folder: wait for "
                "it, or choose another folder"
            ) from error
        yield


def _compare_inputs(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if name not in before:
            yield f"{name} is new"
        elif name not in now:
            yield f"{name} is no longer given"
        elif before[name] != now[name]:
            yield f"{name} has changed"


def _compare_words(step: str, before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    lost = [word for word in _options(before) if word not in _options(now)]
    new = [word for word in _options(now) if word not in _options(before)]
    if lost:
        now_has = f", now has {' '.join(new)}" if new else ""
        yield f"{step} had {' '.join(lost)}{now_has}"
    elif new:
        yield f"{step} now has {' '.join(new)}"


def _options(words: Sequence[str]) -> list[str]:
    """Join each option with its value."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--") and " " not in joined[-1] and word[:2] != "--":
            joined[-1] += f" {shlex.quote(word)}"
        else:
            joined.append(word)
    return joined


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
