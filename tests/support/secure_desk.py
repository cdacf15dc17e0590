"""A worker on a secured Kafka: logins, topics, rights, and how it works and ends there.

It is the production worker with an engine of fixed service time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer

from tests.chaos.harness import FAKE_WORKER
from tests.support import unsigned_token
from tests.support.secure_broker import (
    KEY_PASSWORD,
    PLAIN_PASSWORD,
    SCRAM_PASSWORD,
    Right,
    SecureBroker,
    fresh_topics,
)
from tests.support.topics import read_all
from worker.demo.program import Program, start_worker

WRONG_PASSWORD = "planted-wrong-password"
MESSAGE = "planted-message-text where is parcel"
PLANTED = (
    unsigned_token.SECRET,
    PLAIN_PASSWORD,
    SCRAM_PASSWORD,
    KEY_PASSWORD,
    WRONG_PASSWORD,
    MESSAGE,
    "PRIVATE KEY",
)
FAILS_WITHIN_S = 15.0
"""With the default settings, including the interpreter's own start."""

_MEANWHILE = re.compile(r'"event": ?"(http\.listening|stream\.unreachable)"')
"""A worker's events before it ends; on a busy machine the second one too."""

PAGE = Path("docs/kafka.md")
PLACES = {
    "support.messages": "input",
    "support.labels": "output",
    "support.labels.review": "review",
    "support.labels.dead": "dead",
    "filing-clerk": "group",
    "filing-clerk.": "transactions",
}
PRINCIPALS = {
    "mutual tls": "CN=clerk",
    "plain": "plain-clerk",
    "scram": "scram-clerk",
    "token": unsigned_token.PRINCIPAL,
}


class Refused(NamedTuple):
    """A wrong login: its settings, the exit code, and the address and the fix in the error."""

    given: dict[str, str]
    code: int
    where: str
    fix: str


def ways(kafka: SecureBroker) -> dict[str, dict[str, str]]:
    """The settings of each way to log in."""
    at = kafka.address_of
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
        "token": {
            **sasl,
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_token_callback": "tests.support.unsigned_token:token",
        },
    }


def mostly_long(names: Iterable[str], often: Collection[str]) -> list[Any]:
    """Test cases of which only some always run, and all in ``make nightly``."""
    return [pytest.param(name, marks=[] if name in often else pytest.mark.long) for name in names]


def documented_rights() -> dict[str, tuple[str, str]]:
    """The rights of a worker in docs/kafka.md: by place the kind and the operation."""
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    given = re.findall(
        r"^    kafka-acls\.sh .* --operation (\w+) +--(topic|group|transactional-id) (\S+)",
        text,
        re.MULTILINE,
    )
    return {
        PLACES[name]: (kind.upper().replace("-", "_"), operation.upper())
        for operation, kind, name in given
    }


@dataclass
class Desk:
    """A worker's topics and group, and the rights that it needs, from docs/kafka.md."""

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
            for place, (kind, operation) in documented_rights().items()
        }
        assert set(self.rights) == set(names)

    def allow(self, way: str, *, but: str | None = None) -> None:
        """Give the login's user a worker's rights, ``but`` for one."""
        if way not in PRINCIPALS:
            return
        principal = f"User:{PRINCIPALS[way]}"
        self.kafka.forbid(principal)
        self.kafka.allow(principal, [self.rights[name] for name in self.rights if name != but])

    def settings(self, given: Mapping[str, str]) -> dict[str, str]:
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
        """Publish valid messages, an invalid one, and one without a value."""
        producer = Producer({"bootstrap.servers": self.kafka.servers, "log_level": 0})
        for number in range(count):
            text = json.dumps({"id": str(number), "message": f"{MESSAGE} {number}?"})
            producer.produce(self.topics["in"], text)
        producer.produce(self.topics["in"], f'{{"message": ["{MESSAGE}'.encode())
        producer.produce(self.topics["in"], None)
        assert producer.flush(30) == 0

    def results(self) -> int:
        named = (self.topics[name] for name in ("out", "review", "dead"))
        return sum(len(read_all(self.kafka.servers, topic)) for topic in named)

    def label_all(self, worker: Program, count: int) -> None:
        """Publish messages, and wait for exactly their results."""
        self.publish(count)
        until = time.monotonic() + 60
        while self.results() < count + 2:
            worker.check()
            assert time.monotonic() < until, f"{self.results()} of {count + 2}"
            time.sleep(0.2)
        assert self.results() == count + 2

    def label_by(self, way: str, delivery: str) -> None:
        """A worker labels with this login and only the rights in the runbook, at least once
        without transactional ids, and stops normally."""
        self.allow(way, but="transactions" if delivery == "at_least_once" else None)
        given = self.settings({**ways(self.kafka)[way], "delivery": delivery})
        log = self.folder / "worker.log"
        with start_worker({**given, "http.port": "0"}, log, FAKE_WORKER) as worker:
            self.label_all(worker, 20)
            assert worker.stop() == 0
        for planted in PLANTED:
            assert planted not in log.read_text(encoding="utf-8")

    def start_failing(self, given: Mapping[str, str]) -> tuple[int, str, float]:
        """Start a worker that must exit by itself. Returns its exit code, its output (without
        the event for probes and the reports of what it tries), and the seconds."""
        settings = {**self.settings(given), "http.port": "0"}
        flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, *FAKE_WORKER, *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
            env={**os.environ, "CHAOS_LOAD_S": "100"},  # a model that would be noticed
        )  # fmt: skip
        seconds = time.monotonic() - begin
        for planted in PLANTED:
            assert planted not in done.stdout
        lines = [line for line in done.stdout.splitlines() if not _MEANWHILE.search(line)]
        return done.returncode, "\n".join(lines), seconds

    def assert_explained(self, refused: Refused, *, soon: bool) -> None:
        """A worker with these settings exits before the model is loaded, in a bounded time, with
        one line: the problem, the address, the fix. An unreachable broker is waited for as
        long as the settings say, because it may be starting; a refusal ends it, by default
        after 5 s, with ``soon`` after 3 s."""
        sooner = {"start_timeout_s": "3"} if soon else {}
        ended, written, seconds = self.start_failing(refused.given | sooner)
        assert ended == refused.code, written
        (line,) = written.splitlines()
        assert line.startswith("error: ")
        assert refused.where in line
        assert refused.fix in line
        assert seconds < FAILS_WITHIN_S
