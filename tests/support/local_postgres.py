"""PostgreSQL for tests: Debian's programs with their own cluster in a temporary folder, on
loopback, run by an unprivileged user.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Self

import pg8000.native

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
"""Debian's paths, the newest version last; empty if there is none."""


class LocalPostgres:
    """A server; a context manager. Its data survives ``kill`` and ``start``."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="clerk-postgres-"))
        self._data = self._folder / "data"
        self._server: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user)
        self._run(
            "initdb", "-D", str(self._data), "-U", "desk", "--auth=trust", "--encoding=UTF8",
            "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        """Start the server, and return when it answers. After a kill it may find a process of
        the previous one and exit: then it is restarted."""
        until = time.monotonic() + 60
        self._launch()
        while True:
            try:
                self.connect("postgres").close()
            except (pg8000.native.InterfaceError, pg8000.native.DatabaseError):
                if time.monotonic() > until:
                    raise RuntimeError((self._folder / "log").read_text()[-2000:]) from None
                time.sleep(0.1)
                if self._server is not None and self._server.poll() is not None:
                    self._launch()
            else:
                return

    def _launch(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    str(PROGRAMS[-1] / "postgres"), "-D", str(self._data), "-p", str(self.port),
                    "-c", "listen_addresses=127.0.0.1",
                    "-c", f"unix_socket_directories={self._folder}",
                    "-c", "max_connections=60", "-c", "shared_buffers=64MB",
                    # The processes are killed, never the machine.
                    "-c", "fsync=off", "-c", "full_page_writes=off",
                ],
                stdout=log, stderr=log, user=self._user, cwd=self._folder,
            )  # fmt: skip

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the server, by default as a crash does."""
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait(60)
            self._server = None

    def connect(self, database: str) -> pg8000.native.Connection:
        return pg8000.native.Connection("desk", "127.0.0.1", database, self.port)

    def create(self, template: str | None = None) -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        connection = self.connect("postgres")
        connection.run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        connection.close()
        return name

    def drop(self, name: str) -> None:
        """Remove a database, even if clients are connected."""
        connection = self.connect("postgres")
        connection.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.close()

    def url(self, name: str) -> str:
        return f"postgresql://desk@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(PROGRAMS[-1] / program), *arguments],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self._folder,
        )
