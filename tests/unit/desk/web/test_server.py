"""The pages over a real socket, and the commands about people."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from desk.app import web_options
from desk.cli.main import app
from desk.errors import Refused, SettingsError
from desk.settings import Settings, SignInSettings, WebSettings
from desk.web.application import serve
from desk.web.visit import WebOptions
from tests.support.desk_databases import NewDatabase
from tests.support.desk_world import DeskWorld
from tests.support.processes import free_ports

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


def test_metrics_may_have_a_port_of_their_own(world: DeskWorld) -> None:
    """Then nobody who reaches the pages reads them, whatever they call the host, and nobody who
    reads them reaches a page."""
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
    with serve(world.desk, WebOptions(port=0)) as address:
        assert status(address, "/metrics") == 200


def test_metrics_are_not_on_their_own_port_and_the_pages() -> None:
    """One setting would be without effect."""
    with pytest.raises(SettingsError, match=r"web\.metrics_port"):
        web_options(Settings(web=WebSettings(port=8090, metrics_port=8090)))


def test_an_address_of_nobody_is_a_wrong_setting(world: DeskWorld) -> None:
    """Not a traceback."""
    with (
        pytest.raises(SettingsError, match=r"web\.host"),
        serve(world.desk, WebOptions(host="192.0.2.1", port=0)),
    ):
        pass


def test_cookies_are_secure_unless_nobody_else_listens() -> None:
    """Unless it is said otherwise."""
    public = Settings(
        web=WebSettings(host="0.0.0.0"), sign_in=SignInSettings(method="local", session_hours=1)
    )
    assert web_options(public).secure
    assert web_options(public).longest_ms == 3_600_000
    assert not web_options(Settings()).secure
    behind = Settings(web=WebSettings(secure_cookies=True), sign_in=SignInSettings(method="local"))
    assert web_options(behind).secure


def test_check_config_refuses_what_is_not_safe() -> None:
    """Before anybody relies on it."""
    flags = ["-s", "web.host=0.0.0.0", "-s", f"project.taxonomy={TAXONOMY}"]
    done = CliRunner().invoke(app, ["check-config", *flags])
    assert done.exit_code == 2
    assert "sign_in.method is none" in done.stderr
    done = CliRunner().invoke(app, ["check-config", *flags, "-s", "sign_in.method=local"])
    assert (done.exit_code, done.stderr) == (0, "")


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
    assert isinstance(odd.exception, SettingsError)
    nobody = runner.invoke(app, ["people", "role", "bo", "owner", *settings])
    assert isinstance(nobody.exception, Refused)
    listed = runner.invoke(app, ["people", "list", *settings]).output
    assert listed.startswith("ada\towner\tannotator-")
    assert "a long enough" not in listed


def test_nothing_is_listened_on_by_the_options_alone() -> None:
    """Loopback is the default."""
    assert WebOptions().host == Settings().web.host == "127.0.0.1"
    assert socket.inet_aton(WebOptions().host)
