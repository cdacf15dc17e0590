"""The desk as a process of its own: where a person decides what the demo's worker was unsure of."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from worker.contract.taxonomy import Taxonomy
from worker.demo.broker_config import free_port, port_is_free
from worker.demo.program import Program, ProgramFailed, start_program

_USUAL_PORT = 8090
_START_S = 120.0
_STOP_S = 30.0
_OPEN = re.compile(r'^clerk_desk_items\{state="open"\} (\S+)$', re.MULTILINE)


class DeskProcess:
    """A running ``clerk-desk run`` on loopback, without sign-in."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.url = program.logged("desk.started", "address") or ""

    def check(self) -> None:
        """Raise ProgramFailed when it has ended."""
        self._program.check()

    def waiting(self) -> int:
        """Return how many messages can be decided now."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:  # noqa: S310
            found = _OPEN.search(answer.read().decode("utf-8"))
        return int(float(found[1])) if found else 0

    def wait_for_messages(self, count: int, within_s: float = 60.0) -> int:
        """Wait until so many can be decided; return how many can."""
        until = time.monotonic() + within_s
        while (found := self.waiting()) < count and time.monotonic() < until:
            self.check()
            time.sleep(0.2)
        return found


@contextmanager
def start_desk(
    bootstrap_servers: str, topics: Mapping[str, str], taxonomy: Taxonomy, folder: Path
) -> Iterator[DeskProcess]:
    """Start the desk on a database in ``folder``, made or brought up to date first; stop it at the
    end. ``topics`` are settings of its section kafka. Raises ProgramFailed."""
    labels = folder / "taxonomy.toml"
    labels.write_text(_toml(taxonomy), encoding="utf-8")
    settings = desk_settings(bootstrap_servers, topics, labels, folder / "desk.db")
    log_path = folder / "desk.log"
    log_path.unlink(missing_ok=True)  # of another start in this folder
    with start_program(
        "the desk's migration", ("-m", "desk", "migrate"), settings, log_path, grace_s=_STOP_S
    ) as migration:
        try:
            migration.wait_until_done(_START_S)
        except ProgramFailed as error:
            hint = "" if "ModuleNotFoundError" not in str(error) else _INSTALL
            raise ProgramFailed(f"{error}{hint}") from None
    with start_program(
        "the desk", ("-m", "desk", "run"), settings, log_path, grace_s=_STOP_S
    ) as program:
        program.wait_for("desk.started", _START_S)
        yield DeskProcess(program)


_INSTALL = "\nThe desk's packages are missing: pip install 'filing-clerk[desk]'"


def desk_settings(
    bootstrap_servers: str, topics: Mapping[str, str], labels: Path, database: Path
) -> dict[str, str]:
    """Return what the demo's desk is told, over the defaults: one person works at it alone."""
    port = _USUAL_PORT if port_is_free(_USUAL_PORT) else free_port()
    return {
        "project.taxonomy": str(labels),
        "database.url": f"sqlite:///{database}",
        "kafka.bootstrap_servers": bootstrap_servers,
        **{f"kafka.{name}": topic for name, topic in topics.items()},
        "kafka.create_topics": "true",
        "kafka.client.log_level": "0",
        # A second opinion would never come.
        "review.double_share": "0",
        "review.audit_double_share": "0",
        "review.publish_delay_s": "2",
        "audit.share": "0.05",
        "web.port": str(port),
        "log.format": "json",
    }


def show_in_browser(url: str) -> bool:
    """Open a page in the browser of whoever sits here; tell whether there is one.

    Without a display the standard library would open one that takes the terminal over.
    """
    seen = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return bool(seen and sys.stdout.isatty() and webbrowser.open(url))


def _toml(taxonomy: Taxonomy) -> str:
    """Write a taxonomy as its file would be: a JSON string is a TOML string too."""
    head = (taxonomy.to_dict()[key] for key in ("name", "version", "description"))
    name, version, words = (json.dumps(text, ensure_ascii=False) for text in head)
    lines = [f"name = {name}", f"version = {version}", f"description = {words}"]
    for label in taxonomy.labels:
        named, told = (
            json.dumps(text, ensure_ascii=False) for text in (label.name, label.description)
        )
        lines += ["", "[[labels]]", f"name = {named}", f"description = {told}"]
    return "\n".join(lines) + "\n"
