"""Workers on a Kafka that is secured: each way in works, and each that is wrong is told in a line.

A real broker with TLS, client certificates, passwords and rights; the production worker with an
engine of fixed time. Whatever the worker's processes write is searched for secrets and messages.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.chaos.harness import FAKE_WORKER
from tests.ports.test_observe import get
from tests.support.collector import Collector
from tests.support.secure_broker import (
    KEY_PASSWORD,
    PLAIN_PASSWORD,
    SCRAM_PASSWORD,
    Right,
    SecureBroker,
    fresh_topics,
    secure_broker,
)
from tests.support.topics import read_all
from worker.demo.worker_process import WorkerProcess, start_worker

WRONG_PASSWORD = "planted-wrong-password"
MESSAGE = "planted-message-text where is parcel"
PLANTED = (PLAIN_PASSWORD, SCRAM_PASSWORD, KEY_PASSWORD, WRONG_PASSWORD, MESSAGE, "PRIVATE KEY")
FAILS_WITHIN_S = 15.0
"""With the default settings; the interpreter's own start included."""


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    with secure_broker(tmp_path_factory.mktemp("certificates")) as running:
        yield running


def ways(kafka: SecureBroker) -> dict[str, dict[str, str]]:
    """The settings of each way in."""
    at = kafka.broker.address_of
    tls = {"security_protocol": "ssl", "ssl_ca_location": str(kafka.ca.certificate)}
    sasl = {**tls, "bootstrap_servers": at("SASL"), "security_protocol": "sasl_ssl"}
    mutual = {
        **tls,
        "bootstrap_servers": at("MTLS"),
        "ssl_certificate_location": str(kafka.client.certificate),
        "ssl_key_location": str(kafka.client.key),
        "ssl_key_password": KEY_PASSWORD,
    }
    plain = {"sasl_mechanism": "PLAIN", "sasl_username": "plain-clerk"}
    scram = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "scram-clerk"}
    return {
        "tls": {**tls, "bootstrap_servers": at("TLS")},
        "mutual tls": mutual,
        "plain": {**sasl, **plain, "sasl_password": PLAIN_PASSWORD},
        "scram": {**sasl, **scram, "sasl_password": SCRAM_PASSWORD},
    }


RUNBOOK = Path("docs/operations.md")
PLACES = {
    "support.messages": "input",
    "support.labels": "output",
    "support.labels.review": "review",
    "support.labels.dead": "dead",
    "filing-clerk": "group",
    "filing-clerk.": "transactions",
}


def runbooks_rights() -> dict[str, tuple[str, str]]:
    """The rights that docs/operations.md gives a worker: by place the kind and the operation."""
    text = RUNBOOK.read_text(encoding="utf-8").replace("\\\n", " ")
    given = re.findall(
        r"^    kafka-acls\.sh .* --operation (\w+) +--(topic|group|transactional-id) (\S+)",
        text,
        re.MULTILINE,
    )
    return {
        PLACES[name]: (kind.upper().replace("-", "_"), operation.upper())
        for operation, kind, name in given
    }


PRINCIPALS = {"mutual tls": "CN=clerk", "plain": "plain-clerk", "scram": "scram-clerk"}


@dataclass
class Desk:
    """A worker's topics and group, and the rights that it needs, as docs/operations.md has them."""

    kafka: SecureBroker
    folder: Path
    topics: dict[str, str] = field(default_factory=fresh_topics)

    def __post_init__(self) -> None:
        self.kafka.create_topics(self.topics.values())
        self.group = self.topics["in"].rpartition(".")[0]
        names = {
            "input": self.topics["in"],
            "output": self.topics["out"],
            "review": self.topics["review"],
            "dead": self.topics["dead"],
            "group": self.group,
            "transactions": f"{self.group}.*",
        }
        self.rights: dict[str, Right] = {
            place: (kind, names[place], operation)
            for place, (kind, operation) in runbooks_rights().items()
        }
        assert set(self.rights) == set(names)

    def allow(self, way: str, *, but: str | None = None) -> None:
        """Give the way's user a worker's rights, ``but`` for one."""
        if way not in PRINCIPALS:
            return
        principal = f"User:{PRINCIPALS[way]}"
        self.kafka.forbid(principal)
        self.kafka.allow(principal, [self.rights[name] for name in self.rights if name != but])

    def settings(self, given: Mapping[str, str]) -> dict[str, str]:
        """A worker's settings, as TOML."""
        named = {
            "group_id": self.group,
            "input_topics": self.topics["in"],
            "output_topic": self.topics["out"],
            "review_topic": self.topics["review"],
            "dead_letter_topic": self.topics["dead"],
            **given,
        }
        return {f"kafka.{name}": f"'{value}'" for name, value in named.items()}

    def publish(self, count: int) -> None:
        """Publish good messages, one that is none, and one without a value."""
        producer = Producer({"bootstrap.servers": self.kafka.servers, "log_level": 0})
        for number in range(count):
            text = json.dumps({"id": str(number), "message": f"{MESSAGE} {number}?"})
            producer.produce(self.topics["in"], text)
        producer.produce(self.topics["in"], f'{{"message": ["{MESSAGE}'.encode())
        producer.produce(self.topics["in"], None)
        assert producer.flush(30) == 0

    def results(self) -> int:
        """How many there are, in all three topics."""
        named = (self.topics[name] for name in ("out", "review", "dead"))
        return sum(len(read_all(self.kafka.servers, topic)) for topic in named)


@pytest.fixture
def desk(kafka: SecureBroker, tmp_path: Path) -> Desk:
    return Desk(kafka, tmp_path)


def label_all(desk: Desk, worker: WorkerProcess, count: int) -> None:
    desk.publish(count)
    until = time.monotonic() + 60
    while desk.results() < count + 2:
        worker.check()
        assert time.monotonic() < until, f"{desk.results()} of {count + 2}"
        time.sleep(0.2)
    assert desk.results() == count + 2


@pytest.mark.parametrize(
    ("way", "delivery"),
    [
        ("tls", "exactly_once"),
        ("mutual tls", "exactly_once"),
        ("plain", "at_least_once"),
        ("scram", "exactly_once"),
        pytest.param("scram", "at_least_once", marks=pytest.mark.long),
    ],
)
def test_a_worker_labels_by_each_way_in(desk: Desk, way: str, delivery: str) -> None:
    """With no right but those that the runbook lists; at least once without transactional ids."""
    desk.allow(way, but="transactions" if delivery == "at_least_once" else None)
    given = desk.settings({**ways(desk.kafka)[way], "delivery": delivery})
    log = desk.folder / "worker.log"
    with start_worker({**given, "http.enabled": "false"}, log, FAKE_WORKER) as worker:
        label_all(desk, worker, 20)
        assert worker.stop() == 0
    for planted in PLANTED:
        assert planted not in log.read_text(encoding="utf-8")


def test_the_settings_in_the_runbook_are_those_that_were_run(kafka: SecureBroker) -> None:
    """The same keys, and the same values where they are no address, path or name."""
    blocks = re.findall(r"```toml\n(.*?)```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    written = [tomllib.loads(block)["kafka"] for block in blocks]
    assert len(written) == 3
    for given, way in zip(written, ("tls", "mutual tls", "scram"), strict=True):
        run = ways(kafka)[way]
        assert given.keys() == {name for name in run if not name.endswith("password")}
        for name in ("security_protocol", "sasl_mechanism"):
            assert given.get(name) == run.get(name)


def start_failing(desk: Desk, given: Mapping[str, str]) -> tuple[int, str, float]:
    """Start a worker that must end by itself; its exit code, all that it wrote, and seconds."""
    settings = {**desk.settings(given), "http.enabled": "false"}
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, *FAKE_WORKER, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
        env={**os.environ, "CHAOS_LOAD_S": "100"},  # a model that would be noticed
    )  # fmt: skip
    return done.returncode, done.stdout, time.monotonic() - begin


def wrong(kafka: SecureBroker) -> dict[str, tuple[dict[str, str], int, str, str]]:
    """Each thing that can be wrong: the settings, the exit code, where, and how to mend it."""
    at, good = kafka.broker.address_of, ways(kafka)
    plain, scram, mutual, tls = (good[way] for way in ("plain", "scram", "mutual tls", "tls"))
    expired = {
        **mutual,
        "ssl_certificate_location": str(kafka.expired_client.certificate),
        "ssl_key_location": str(kafka.expired_client.key),
    }
    bare = {"bootstrap_servers": at("TLS")}
    return {
        "an unknown authority": (
            {**tls, "ssl_ca_location": str(kafka.other_ca.certificate)},
            4, at("TLS"), "authority that is not known: set kafka.ssl_ca_location",
        ),
        "another host's certificate": (
            {**tls, "bootstrap_servers": at("RENAMED")},
            4, at("RENAMED"), "another host's: connect by a name that it has (kafka.bootstrap",
        ),
        "an expired certificate": (
            {**tls, "bootstrap_servers": at("EXPIRED")},
            4, at("EXPIRED"), "the broker's certificate has expired",
        ),
        "no client certificate": (
            {**tls, "bootstrap_servers": at("MTLS")},
            4, at("MTLS"), "demands a client certificate: set kafka.ssl_certificate_location",
        ),
        "an expired client certificate": (
            expired, 4, at("MTLS"), "check kafka.ssl_certificate_location",
        ),
        "a wrong key password": (
            {**mutual, "ssl_key_password": WRONG_PASSWORD},
            2, "kafka.ssl_key", "kafka.ssl_key_password is wrong or missing",
        ),
        "a wrong password (PLAIN)": (
            {**plain, "sasl_password": WRONG_PASSWORD},
            4, at("SASL"), "refuses the user 'plain-clerk' (PLAIN): check kafka.sasl_username",
        ),
        "a wrong password (SCRAM)": (
            {**scram, "sasl_password": WRONG_PASSWORD},
            4, at("SASL"), "refuses the user 'scram-clerk' (SCRAM-SHA-512): check kafka.sasl_",
        ),
        "a mechanism that is not offered": (
            {**scram, "sasl_mechanism": "SCRAM-SHA-256"},
            4, at("SASL"), "set kafka.sasl_mechanism to one that it supports",
        ),
        "plaintext to a TLS port": (
            bare, 4, at("TLS"), "speaks TLS and kafka.security_protocol is plaintext",
        ),
        "TLS to a plaintext port": (
            {**tls, "bootstrap_servers": kafka.servers},
            4, kafka.servers, "speaks no TLS at this address: set kafka.security_protocol",
        ),
        "no login": (
            {**tls, "bootstrap_servers": at("SASL")},
            4, at("SASL"), "if it demands a login, set kafka.security_protocol to sasl_ssl",
        ),
        "a login where there is none": (
            {**plain, "bootstrap_servers": at("TLS")},
            4, at("TLS"), "takes no SASL at this address: set kafka.security_protocol",
        ),
    }  # fmt: skip


_OFTEN = {"an unknown authority", "no client certificate", "a wrong password (SCRAM)"}
_WRONG = (
    "an unknown authority", "another host's certificate", "an expired certificate",
    "no client certificate", "an expired client certificate", "a wrong key password",
    "a wrong password (PLAIN)", "a wrong password (SCRAM)", "a mechanism that is not offered",
    "plaintext to a TLS port", "TLS to a plaintext port", "no login", "a login where there is none",
)  # fmt: skip


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=[] if what in _OFTEN else pytest.mark.long) for what in _WRONG],
)
def test_a_way_in_that_is_wrong_is_told(desk: Desk, what: str) -> None:
    """Before the model is loaded, in a bounded time, in one line: what, where, how to mend it."""
    cases = wrong(desk.kafka)
    assert set(cases) == set(_WRONG)
    given, code, where, mend = cases[what]
    # What nobody refuses is waited for as long as the settings say, for a broker may be starting;
    # what is refused, 5 s by default.
    sooner = {} if what in _OFTEN else {"start_timeout_s": "3"}
    ended, written, seconds = start_failing(desk, given | sooner)
    told = written.splitlines()
    assert ended == code, written
    assert len(told) == 1, written
    assert told[0].startswith("error: ")
    assert where in told[0]
    assert mend in told[0]
    assert seconds < FAILS_WITHIN_S
    for planted in PLANTED:
        assert planted not in written


@pytest.mark.long
@pytest.mark.parametrize("command", ["verify", "topics"])
def test_every_command_tells_it(desk: Desk, command: str) -> None:
    """In the same words as the worker."""
    given, code, where, mend = wrong(desk.kafka)["a wrong password (SCRAM)"]
    settings = desk.settings({**given, "start_timeout_s": "3"})
    flags = [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "worker", command, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    (told,) = done.stdout.splitlines()
    assert where in told
    assert mend in told
    assert WRONG_PASSWORD not in told


MISSING = {
    "input": ("read the topic '{in}' (kafka.input_topics)", False),
    "output": ("write the topic '{out}' (kafka.output_topic)", True),
    "review": ("write the topic '{review}' (kafka.review_topic)", True),
    "dead": ("write the topic '{dead}' (kafka.dead_letter_topic)", False),
    "group": ("read as the consumer group '{group}' (kafka.group_id)", False),
    "transactions": ("(kafka.transactional_id)", False),
}


@pytest.mark.parametrize(
    "right",
    [
        pytest.param(right, marks=pytest.mark.long if later else [])
        for right, (_, later) in MISSING.items()
    ],
)
@pytest.mark.parametrize("described", [False, True], ids=["nothing at all", "may be described"])
def test_a_right_that_is_missing_is_named(desk: Desk, right: str, described: bool) -> None:
    """Before the model is loaded; also where the thing is to be seen and no more."""
    desk.allow("scram", but=right)
    if described:
        kind, name, _ = desk.rights[right]
        desk.kafka.allow("User:scram-clerk", [(kind, name, "DESCRIBE")])
    ended, written, seconds = start_failing(desk, ways(desk.kafka)["scram"])
    told = [line for line in written.splitlines() if line.startswith("error: ")]
    assert ended == 4, written
    assert len(told) == 1, written
    assert "'scram-clerk' may not " in told[0]
    assert MISSING[right][0].format(**desk.topics, group=desk.group) in told[0]
    assert desk.kafka.broker.address_of("SASL") in told[0]
    assert "Traceback" not in written
    assert len(written.splitlines()) == 1, written
    assert seconds < FAILS_WITHIN_S


def test_all_that_is_missing_is_named_at_once(desk: Desk) -> None:
    """So that rights are asked for once."""
    desk.kafka.forbid("User:scram-clerk")
    ended, written, _ = start_failing(desk, ways(desk.kafka)["scram"])
    assert ended == 4
    for topic in (*desk.topics.values(), desk.group):
        assert repr(topic) in written


def test_rights_that_are_taken_away_end_the_worker_with_their_name(desk: Desk) -> None:
    """While it runs it finds out by what is refused, and loses nothing by it."""
    desk.allow("scram")
    log = desk.folder / "worker.log"
    given = desk.settings(ways(desk.kafka)["scram"])
    with start_worker({**given, "http.enabled": "false"}, log, FAKE_WORKER) as worker:
        label_all(desk, worker, 5)
        desk.allow("scram", but="output")
        desk.publish(5)
        assert worker.child.wait(60) == 4
    (told,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert "producing to " in told
    assert desk.topics["out"] in told.partition(": no right to use the topic: ")[0]
    assert desk.results() == 7


def pages_of(worker: WorkerProcess) -> str:
    assert worker.url is not None
    paths = ("/metrics", "/info", "/livez", "/readyz", "/startupz", "/nothing")
    return "".join(get(worker.url, path)[1].decode() for path in paths)


def test_no_secret_and_no_message_is_anywhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log at debug level with the client's own, HTTP pages, traces, `clerk-worker config`."""
    key = desk.kafka.client.key.read_text()
    settings = {
        **desk.settings(ways(desk.kafka)["scram"]),
        "kafka.client": f"{{'ssl.key.pem' = '''{key}''', 'ssl.key.password' = '{KEY_PASSWORD}', "
        f"'ssl.certificate.pem' = '''{desk.kafka.client.certificate.read_text()}'''}}",
        "kafka.producer": "{debug = 'all'}",
        "kafka.consumer": "{debug = 'all'}",
        "log.level": "'debug'",
        "log.format": "'json'",
        "tracing.enabled": "true",
        "http.port": "0",
    }
    desk.allow("scram")
    with ExitStack() as stack:
        collector = Collector()
        stack.callback(collector.close)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        log = desk.folder / "worker.log"
        worker = stack.enter_context(start_worker(settings, log, FAKE_WORKER))
        label_all(desk, worker, 20)
        written = pages_of(worker)
        assert worker.stop() == 0
        assert collector.spans
        written += "".join(map(str, collector.requests))
    assert "clerk_records_total" in written
    assert desk.group in written
    written += log.read_text(encoding="utf-8") + shown(settings)
    key_line = key.splitlines()[3]
    for planted in (*PLANTED, key_line):
        assert planted not in written


def shown(settings: Mapping[str, str]) -> str:
    """What `clerk-worker config` prints of these."""
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [sys.executable, "-m", "worker", "config", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "scram-clerk" in done.stdout
    return str(done.stdout)
