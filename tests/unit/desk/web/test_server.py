"""The pages over a real socket, and the commands about people."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from desk.app import web_options
from desk.cli.main import app
from desk.errors import Refused, SettingsError
from desk.settings import Settings, SignInSettings, WebSettings
from desk.web import server
from desk.web.server import serve
from desk.web.visit import WebOptions
from tests.support.desk_databases import NewDatabase
from tests.support.desk_world import Command, DeskWorld
from tests.support.processes import free_ports

UNFINISHED = (
    b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\na="
)
TAXONOMY = Path(__file__).parents[4] / "config" / "taxonomy.toml"


def test_pages_are_served_and_end(world: DeskWorld) -> None:
    """On a port of its own, until the desk ends; nothing says which server it is."""
    with serve(world.desk, WebOptions(port=0)) as address:
        with urllib.request.urlopen(f"{address}/") as answer:
            assert b"What waits for a decision" in answer.read()
            assert answer.headers["server"] is None
        taken = WebOptions(port=int(address.rpartition(":")[2]))
        with (
            pytest.raises(SettingsError, match="cannot be listened on"),
            serve(world.desk, taken),
        ):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{address}/livez")


def test_metrics_have_their_own_port(world: DeskWorld) -> None:
    """Users of the pages cannot read them, whatever Host header they send, and no page is on that
    port."""
    (port,) = free_ports(1)

    def status(address: str, path: str, host: str = "localhost") -> int:
        try:
            asked = urllib.request.Request(f"{address}{path}", headers={"Host": host})
            with urllib.request.urlopen(asked) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with serve(world.desk, WebOptions(port=0, metrics_port=port)) as address:
        metrics = f"http://127.0.0.1:{port}"
        assert status(metrics, "/metrics") == status(address, "/") == 200
        assert status(address, "/metrics") == status(metrics, "/") == 404
        assert status(address, "/metrics", host=f"127.0.0.1:{port}") == 404
        assert status(address, "/readyz") == 200


def test_a_slow_request_is_cut_off(world: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that send a byte now and then would use up the file descriptors. A connection
    with complete requests stays open."""
    with serve(world.desk, WebOptions(port=0)) as address:
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        kept = http.client.HTTPConnection(*place, timeout=60)
        kept.request("GET", "/livez")
        assert kept.getresponse().read() == b"ok"
        used = kept.sock
        monkeypatch.setattr(server, "HEADERS_S", 0.5)
        assert used is not None
        slow, idle = (socket.create_connection(place, timeout=10) for _ in range(2))
        with slow, idle:
            used.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in used.recv(4096)
            begun = time.monotonic()
            while not is_closed(slow) or not is_closed(idle):
                with suppress(OSError):
                    slow.send(b"G")
                time.sleep(0.05)
                assert time.monotonic() - begun < 60
            used.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in used.recv(4096)
        kept.close()


def test_open_connections_are_bounded(world: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that only connect could use up the file descriptors that the database needs. The
    oldest idle connection is closed: if the new one were refused, probes would fail too, and the
    kubelet would restart the desk. A request in progress is never cut off."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(server, "HEADERS_S", 600)
    with serve(world.desk, WebOptions(port=0)) as address:
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        with ExitStack() as stack:

            def connect() -> socket.socket:
                return stack.enter_context(socket.create_connection(place))

            busy = connect()
            begin_request(busy)
            first, second = connect(), connect()
            for _ in range(5):
                with urllib.request.urlopen(f"{address}/livez") as answer:
                    assert answer.read() == b"ok"
            assert is_gone(first)
            assert not is_closed(second)
            busy.sendall(b"b")
            assert busy.recv(12) == b"HTTP/1.1 403"


def test_connections_that_arrive_together_are_bounded(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server accepts all that wait before it has closed one of them."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(server, "HEADERS_S", 600)
    with ExitStack() as stack:
        waiting: list[socket.socket] = []
        listen = server._listen

        def listen_late(host: str, port: int, setting: str) -> socket.socket:
            listening = listen(host, port, setting)
            place = listening.getsockname()
            if setting == "web.port":
                waiting.extend(
                    stack.enter_context(socket.create_connection(place)) for _ in range(20)
                )
            return listening

        monkeypatch.setattr(server, "_listen", listen_late)
        with serve(world.desk, WebOptions(port=0)):
            assert all(is_gone(each) for each in waiting[:17])
            assert not any(is_closed(each) for each in waiting[17:])


def test_with_all_connections_busy_a_new_one_is_closed(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(server, "HEADERS_S", 600)
    with serve(world.desk, WebOptions(port=0)) as address:
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        with socket.create_connection(place) as busy:
            begin_request(busy)
            with socket.create_connection(place) as refused:
                assert is_gone(refused)
            busy.sendall(b"b")
            assert busy.recv(12) == b"HTTP/1.1 403"


def begin_request(connection: socket.socket) -> None:
    """Send a part of a request, and wait until a page reads it: before that, the connection counts
    as idle."""
    connection.sendall(UNFINISHED)
    asked_for = b"HTTP/1.1 100 "
    assert connection.recv(len(asked_for)) == asked_for
    while not asked_for.endswith(b"\r\n\r\n"):
        asked_for += connection.recv(1)


def is_gone(connection: socket.socket) -> bool:
    """Wait until the server ends a connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def is_closed(connection: socket.socket) -> bool:
    """Tell whether the server has ended a connection."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_metrics_and_pages_cannot_share_a_port() -> None:
    with pytest.raises(SettingsError, match=r"web\.metrics_port"):
        web_options(Settings(web=WebSettings(port=8090, metrics_port=8090)))


def test_an_address_of_nobody_is_a_wrong_setting(world: DeskWorld) -> None:
    with (
        pytest.raises(SettingsError, match=r"web\.host"),
        serve(world.desk, WebOptions(host="192.0.2.1", port=0)),
    ):
        pass


def test_cookies_are_secure_unless_nobody_else_listens() -> None:
    public = Settings(
        web=WebSettings(host="0.0.0.0"), sign_in=SignInSettings(method="local", session_hours=1)
    )
    assert web_options(public).secure
    assert web_options(public).longest_ms == 3_600_000
    assert not web_options(Settings()).secure
    behind = Settings(web=WebSettings(secure_cookies=True), sign_in=SignInSettings(method="local"))
    assert web_options(behind).secure


def test_people_are_added_and_changed(new_database: NewDatabase) -> None:
    """By anyone who runs the desk: a user with a password, another one, a role, the list."""
    runner = CliRunner()
    settings = ["-s", f"database.url={new_database()}", "-s", f"project.taxonomy={TAXONOMY}"]
    password = "a long enough password\n"
    done = runner.invoke(app, ["people", "add", "ada", *settings], input=password)
    assert done.exception is None, done.output
    assert "ada may sign in as reviewer" in done.output
    again = runner.invoke(app, ["people", "add", "ada", *settings], input=password)
    assert isinstance(again.exception, Refused)
    short = runner.invoke(app, ["people", "password", "ada", *settings], input="short\n")
    assert isinstance(short.exception, SettingsError)
    fine = runner.invoke(app, ["people", "password", "ada", *settings], input=password)
    assert fine.exception is None
    assert runner.invoke(app, ["people", "role", "ada", "owner", *settings]).exception is None
    odd = runner.invoke(app, ["people", "role", "ada", "king", *settings])
    assert odd.exit_code == 2
    assert "'king' is not one of" in odd.output
    nobody = runner.invoke(app, ["people", "role", "bo", "owner", *settings])
    assert isinstance(nobody.exception, Refused)
    listed = runner.invoke(app, ["people", "list", *settings]).output
    assert listed.startswith("ada\towner\tannotator-")
    assert "a long enough" not in listed


def test_exports_and_backups_are_logged(world: DeskWorld, command: Command, tmp_path: Path) -> None:
    command("export", "--out", str(tmp_path / "out"))
    expected = [("decisions.exported", {"project": "inbox", "decisions": 0})]
    if world.database.is_sqlite:
        command("backup", "--out", str(tmp_path / "copy.db"))
        size = (tmp_path / "copy.db").stat().st_size
        expected.insert(0, ("database.backed_up", {"file": "copy.db", "bytes": size}))
    entries = world.log()[: len(expected)]
    assert [(each["action"], each["detail"]) for each in entries] == expected
