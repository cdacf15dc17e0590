"""The local broker's properties, ports and pinned jars."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from worker.demo import kafka_files
from worker.demo.broker import LocalBroker
from worker.demo.kafka_files import BrokerError, ensure_kafka

JARS = {"kafka-1.jar": b"the broker", "log4j-1.jar": b"its log"}
PINS = {name: hashlib.sha256(content).hexdigest() for name, content in JARS.items()}


class Index:
    """Stands in for the package index: counts fetches and can serve other content."""

    def __init__(self, jars: dict[str, bytes] | None = None) -> None:
        self.jars = dict(JARS) if jars is None else jars
        self.fetches = 0
        self.breaks = False

    def __call__(self, scratch: Path) -> Sequence[Path]:
        self.fetches += 1
        paths = []
        for name, content in self.jars.items():
            path = scratch / name.removesuffix(".jar") / name
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            paths.append(path)
            if self.breaks:
                raise KeyboardInterrupt
        return paths


def test_jars_are_fetched_once(tmp_path: Path) -> None:
    index, said = Index(), list[str]()
    first = ensure_kafka(tmp_path, said.append, pins=PINS, fetch=index)
    second = ensure_kafka(tmp_path, said.append, pins=PINS, fetch=index)
    assert first == second == tmp_path / "kafka-4.2.1" / "libs"
    assert {path.name: path.read_bytes() for path in first.iterdir()} == JARS
    assert index.fetches == 1
    assert said == ["fetching Apache Kafka 4.2.1 (45 MB)"]


def test_a_jar_with_another_digest_is_refused_by_name(tmp_path: Path) -> None:
    index = Index(JARS | {"log4j-1.jar": b"something else"})
    with pytest.raises(BrokerError, match=r"^log4j-1\.jar .* is pinned"):
        ensure_kafka(tmp_path, pins=PINS, fetch=index)
    assert [path.name for path in tmp_path.iterdir()] == ["kafka-4.2.1.lock"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("extra.jar", "not a pinned jar"), ("kafka-1.jar", r"delete .*kafka-4\.2\.1 to fetch")],
)
def test_an_unknown_or_changed_jar_in_the_cache_is_refused_by_name(
    tmp_path: Path, name: str, problem: str
) -> None:
    """Everything in the folder is on Java's class path."""
    libs = ensure_kafka(tmp_path, pins=PINS, fetch=Index())
    (libs / name).write_bytes(b"the brok")
    with pytest.raises(BrokerError, match=f"^{re.escape(name)} .* ?{problem}"):
        ensure_kafka(tmp_path, pins=PINS, fetch=Index())


def test_an_interrupted_fetch_leaves_nothing_and_is_retried(tmp_path: Path) -> None:
    """Ctrl-C between two jars must not leave half a set that looks complete."""
    index = Index()
    index.breaks = True
    with pytest.raises(KeyboardInterrupt):
        ensure_kafka(tmp_path, pins=PINS, fetch=index)
    assert [path.name for path in tmp_path.iterdir()] == ["kafka-4.2.1.lock"]
    index.breaks = False
    ensure_kafka(tmp_path, pins=PINS, fetch=index)
    assert index.fetches == 2


def test_every_shipped_pin_is_a_sha256() -> None:
    pins = kafka_files.pinned_jars()
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in pins.values())
    asked_for = {
        "{}-{}.jar".format(*coordinate.split(":")[1:]) for coordinate in kafka_files.COORDINATES
    }
    assert asked_for | {"kafka-clients-4.2.1.jar"} <= pins.keys()


@pytest.mark.parametrize("key", ["listeners", "node.id", "log.dirs", "log.dir"])
def test_properties_that_the_broker_owns_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=re.escape(key)):
        LocalBroker(properties={key: "x"})
