"""Settings and the command line: where values come from, what is refused, what is never shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from desk.app import kafka_security, open_database, settings_problems
from desk.cli.main import app
from desk.errors import SettingsError
from desk.settings import Settings, effective, load_settings
from desk.store.database import Database
from tests.support.logging_state import logging_restored

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CLERK_DESK_"):
            monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    path = folder / "desk.toml"
    path.write_text(text)
    return path


def test_later_sources_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, '[kafka]\noutput_topic = "a"\nreview_topic = "a"\nname = "a"\n')
    monkeypatch.setenv("CLERK_DESK_KAFKA__REVIEW_TOPIC", "b")
    monkeypatch.setenv("CLERK_DESK_KAFKA__NAME", "b")
    kafka = load_settings(file, ["kafka.name=c"]).settings.kafka
    assert (kafka.output_topic, kafka.review_topic, kafka.name) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["kafka.output_topik=x"], "did you mean 'kafka.output_topic'"),
        (["audit.share=2"], "audit.share: .*less than or equal to 1"),
    ],
)
def test_what_is_wrong_is_named(flags: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(None, flags)


def test_secrets_are_never_shown() -> None:
    """Passwords, the database's URL, and properties that look like one."""
    loaded = load_settings(
        None,
        [
            "kafka.sasl_password=planted",
            "database.url=postgresql://desk:planted@db/desk",
            "kafka.client.ssl.key.password=planted",
        ],
    )
    shown = "\n".join(f"{name} {value}" for name, value, _ in effective(loaded))
    assert "planted" not in shown + repr(loaded.settings.kafka.sasl_password)


def test_the_shipped_file_says_what_the_defaults_are(tmp_path: Path) -> None:
    """Each commented line is the default, but for examples."""
    examples = ("ssl_", "sasl_", "client_secret_file", "secret_file", "url_file", "ca_file")
    lines = [
        line[2:]
        if line.startswith("# ") and " = " in line and not line[2:].startswith(examples)
        else line
        for line in (ROOT / "config/desk.toml").read_text("utf-8").splitlines()
    ]
    assert load_settings(write(tmp_path, "\n".join(lines))).settings == Settings()


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """The database's address, Kafka's password, the webhook's: without the line's end, never
    beside the secret itself, and told by the file's name where it cannot be read."""
    address, password = tmp_path / "url", tmp_path / "password"
    address.write_text(f"sqlite:///{tmp_path}/of-a-file.db\n")
    password.write_text("planted\n")
    flags = [f"database.url_file={address}", f"kafka.sasl_password_file={password}"]
    settings = load_settings(None, flags).settings
    database = open_database(settings)
    assert str(database.engine.url.database).endswith("of-a-file.db")
    database.close()
    world = kafka_security(settings.kafka)
    assert world["sasl.password"] == "planted"
    both = load_settings(None, [*flags, "database.url=sqlite:///other.db"]).settings
    with pytest.raises(SettingsError, match=r"database\.url and database\.url_file are both set"):
        open_database(both)
    gone = load_settings(None, [f"database.url_file={tmp_path}/gone"]).settings
    with pytest.raises(SettingsError, match=r"database\.url_file: .*gone cannot be read: No such"):
        open_database(gone)


def desk(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "desk", *arguments],
        cwd=ROOT, env={**os.environ, "NO_COLOR": "1", "COLUMNS": "100"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_errors_of_typed_commands_are_text_in_a_pipe() -> None:
    """Only run and migrate, which run in containers, log JSON there."""
    done = desk("people", "list", "-s", "database.url=mysql://x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: database.url: mysql is not supported")


def test_migrate_makes_the_database_and_run_wants_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3 and the command that is missing; exit 4 where there is no Kafka; one line each."""
    url = f"database.url=sqlite:///{tmp_path / 'desk.db'}"
    done = desk("run", "-s", url)
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == last["exit_code"] == 3
    assert (last["event"], last["level"]) == ("desk.failed", "error")
    assert last["error"].endswith("run `clerk-desk migrate`")
    typed = desk("purge", "--message-id", "T-1", "-s", url)
    assert typed.returncode == 3
    assert typed.stderr.startswith("error: ")
    wrong = json.loads(desk("run", "-s", "kafka.nmae=x").stderr)
    assert (wrong["exit_code"], "did you mean" in wrong["error"]) == (2, True)
    assert "Traceback" not in done.stderr + typed.stderr
    with logging_restored():
        app(["migrate", "-s", url], standalone_mode=False)
        app(["purge", "--message-id", "T-1", "-s", url], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[0] == "the schema is version 0001"


def test_another_taxonomy_wants_a_command(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A desk whose database was decided by another one refuses to open it, and says what to run."""
    url = f"database.url={database.engine.url.render_as_string(hide_password=False)}"
    other = tmp_path / "taxonomy.toml"
    text = (ROOT / "config/taxonomy.toml").read_text("utf-8")
    other.write_text(text.replace('version = "', 'version = "9', 1))
    changed = ("-s", url, "-s", f"project.taxonomy={other}")
    export = ("export", "--out", str(tmp_path / "out"), *changed)
    with logging_restored():
        app(["purge", "--message-id", "T-1", "-s", url], standalone_mode=False)
        with pytest.raises(SettingsError, match="clerk-desk taxonomy"):
            app(export, standalone_mode=False)
        capsys.readouterr()
        app(["taxonomy", *changed], standalone_mode=False)
        assert capsys.readouterr().out.startswith("decisions carried over: 0")
        app(export, standalone_mode=False)
    assert (tmp_path / "out" / "decisions.csv").exists()


def test_check_config_tells_every_problem_at_once(tmp_path: Path) -> None:
    """Taxonomy, sign-in, database, Kafka, webhook: without a database or Kafka, in one run."""
    flags = (
        f"project.taxonomy={tmp_path / 'none.toml'}",
        "web.host=0.0.0.0",
        "database.url=mysql://x/y",
        f"kafka.sasl_password_file={tmp_path / 'password'}",
        "webhook.url=https://hooks.example/x",
    )
    done = desk("check-config", *(word for flag in flags for word in ("-s", flag)))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2
    for said in (
        "project.taxonomy: ",
        "sign_in.method",
        "database.url: mysql is not supported",
        "kafka.sasl_password_file: ",
        "webhook.url is set and webhook.secret is not",
    ):
        assert len([line for line in errors if said in line]) == 1, (said, errors)
    assert len(errors) == 5
    assert 'web.host = "0.0.0.0"  # flag' in done.stdout.splitlines()


def test_corrections_have_a_topic_of_their_own() -> None:
    """Routers would take them for labels, and the desk for results."""
    for setting in ("output_topic", "review_topic"):
        settings = Settings.model_validate(
            {"kafka": {setting: "support.x", "corrections_topic": "support.x"}}
        )
        (problem,) = settings_problems(settings)
        assert problem.startswith(f"kafka.corrections_topic and kafka.{setting} are both 'supp")
