"""Files of the local broker: Apache Kafka's jars, and its properties.

    <cache>/kafka-4.2.1/libs/*.jar

The jars are fetched once and checked against pinned digests. To move to another version: change the
coordinates below, empty `kafka_jars.json` to `{}`, call `fetch_jars` on a scratch folder and pin
the digests of what it returns, after reading the list.
"""

import base64
import hashlib
import json
import random
import shutil
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from worker.cache import cache_folder, made_once

KAFKA_VERSION = "4.2.1"
KAFKA_SIZE_MB = 45

# The log4j and slf4j lines only make the broker's log readable: Kafka brings no binding of its own.
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.slf4j:slf4j-api:2.0.17",
    "org.apache.logging.log4j:log4j-core:2.25.5",
    "org.apache.logging.log4j:log4j-slf4j2-impl:2.25.5",
)

_HTTP_TIMEOUT_S = 60

Fetch = Callable[[Path], Sequence[Path]]
OnEvent = Callable[[str], None]


NODE_ID = 1
HOST = "127.0.0.1"
DATA_FOLDER = "kafka-logs"
PropertyValue = str | int | bool
# A client that reconnects to a dead port of the ephemeral range can be given that same port as its
# own, connect to itself and keep a restarting broker from binding: so ports come from below it.
_LOWEST_PORT = 10_000
_USUAL_EPHEMERAL_START = 32_768
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# What one node on its own needs, and the short waits that make tests and demonstrations quick.
_DEFAULTS: dict[str, PropertyValue] = {
    "auto.create.topics.enable": False,
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "group.consumer.min.session.timeout.ms": 3000,
    # A rebalance by the newer protocol takes several heartbeats: of 5 s by default.
    "group.consumer.min.heartbeat.interval.ms": 500,
    "group.consumer.heartbeat.interval.ms": 1000,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    # After a kill -9 the node begins as the leader that it was, and loads the group's offsets; when
    # its old session runs out it loses the lead, gets it again and loads them once more. Kafka 4.4
    # takes the end of the first load for that of the second, if it comes after the second began:
    # the group then has the offsets of a part of the log, for good. So the session lasts as long as
    # Kafka has it by default, which a restart waits for (11 s), and the first load is over by then;
    # and it reads in small pieces, after each of which it ends if the lead is lost.
    "broker.session.timeout.ms": 9000,
    "broker.heartbeat.interval.ms": 300,
    "offsets.load.buffer.size": 65_536,
}


class BrokerError(RuntimeError):
    """The local broker cannot be fetched, started or reached; the text says why."""


def pinned_jars() -> dict[str, str]:
    """Return the sha256 that each jar must have, by file name (shipped as `kafka_jars.json`)."""
    text = resources.files(__package__).joinpath("kafka_jars.json").read_text(encoding="utf-8")
    pins: dict[str, str] = json.loads(text)
    return pins


def fetch_jars(scratch: Path) -> list[Path]:
    """Resolve Kafka's dependencies and download them below `scratch`; return the jars' paths.

    Takes about 10 s. It honours the `[repositories]` of jgo's own configuration file, so that a
    mirror can be used. Raises BrokerError when jgo is not installed or a file cannot be fetched.
    """
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise BrokerError(
            "jgo is not installed: install filing-clerk with its extra 'demo'"
        ) from error
    # jgo leaves a truncated file behind when it is interrupted and trusts it the next time, so it
    # gets a repository of its own here and not the one in the user's home.
    context = MavenContext(
        resolver=PythonResolver(),
        repo_cache=scratch,
        remote_repos=GlobalSettings.load().repositories or None,
        timeout=_HTTP_TIMEOUT_S,
    )
    try:
        # The `!` matters: without it jgo lets the managed versions of every coordinate apply to
        # all the others, and log4j's replace kafka-clients 4.2.1 by 3.9.1.
        wanted = [context.create_dependency(f"{coordinate}!") for coordinate in COORDINATES]
        inputs, transitive = context.resolver.resolve(wanted)
        needed = [*inputs, *(d for d in transitive if d.scope in ("compile", "runtime"))]
        return [dependency.artifact.resolve() for dependency in needed]
    # SyntaxError is what the XML parser raises when a proxy answers with a page of its own.
    except (OSError, RuntimeError, ValueError, SyntaxError) as error:
        raise BrokerError(f"Apache Kafka {KAFKA_VERSION} cannot be fetched: {error}") from error


def ensure_kafka(
    cache: Path | None = None,
    on_event: OnEvent | None = None,
    *,
    pins: Mapping[str, str] | None = None,
    fetch: Fetch = fetch_jars,
) -> Path:
    """Return the folder that holds exactly the pinned jars, fetching them the first time.

    Later calls use no network and write nothing, so the cache may then be read-only. Every call
    hashes the jars (0.1 s). Safe to call from several processes at once. Raises BrokerError when
    the jars cannot be fetched, or naming the jar when one is missing, unknown or different.
    """
    home = (cache or cache_folder()) / f"kafka-{KAFKA_VERSION}"
    jars = dict(pinned_jars() if pins is None else pins)

    def make(scratch: Path) -> None:
        if on_event is not None:
            on_event(f"fetching Apache Kafka {KAFKA_VERSION} ({KAFKA_SIZE_MB} MB)")
        libs = scratch / "libs"
        libs.mkdir()
        for path in fetch(scratch / "repository"):
            path.replace(libs / path.name)
        shutil.rmtree(scratch / "repository", ignore_errors=True)
        check_jars(libs, jars)

    libs = made_once(home, make) / "libs"
    check_jars(libs, jars)
    return libs


def check_jars(libs: Path, pins: Mapping[str, str]) -> None:
    """Raise BrokerError naming the first jar that is missing, unknown or not as pinned."""
    present = {path.name for path in libs.glob("*.jar")}
    for name in sorted(present | pins.keys()):
        if name not in present:
            raise BrokerError(f"{name} is missing from {libs}; delete {libs.parent} to fetch again")
        if name not in pins:
            raise BrokerError(f"{name} in {libs} is not a pinned jar and is not used")
        with (libs / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != pins[name]:
            raise BrokerError(
                f"{name} in {libs} has sha256 {digest}, pinned is {pins[name]}; it is not used, "
                f"delete {libs.parent} to fetch again"
            )


@dataclass(frozen=True, slots=True)
class BrokerListener:
    """A further address for clients: its port, and its security protocol in Kafka's words."""

    port: int
    protocol: str


def server_properties(
    port: int,
    controller_port: int,
    extra: Mapping[str, PropertyValue] | None = None,
    host: str = HOST,
    listeners: Mapping[str, BrokerListener] | None = None,
) -> dict[str, PropertyValue]:
    """Return the properties of one KRaft node; `extra` adds to and overrides the defaults.

    Clients are served at ``host``, an address of this machine, without security, and at further
    ``listeners`` by name, whose certificates and users are in ``extra``; the controller stays on
    loopback.

    The data folder is relative: the broker runs in the folder that holds it. Raises ValueError
    when `extra` sets an address, identity or data property, which the caller of this owns.
    """
    named = {"CLIENT": BrokerListener(port, "PLAINTEXT"), **(listeners or {})}
    served = ",".join(f"{name}://{host}:{each.port}" for name, each in named.items())
    protocols = ",".join(f"{name}:{each.protocol}" for name, each in named.items())
    owned: dict[str, PropertyValue] = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "listeners": f"{served},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": served,
        "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        "log.dirs": DATA_FOLDER,
    }
    refused = sorted((extra or {}).keys() & (owned.keys() | {"log.dir", "metadata.log.dir"}))
    if refused:
        raise ValueError(f"properties that the local broker sets itself: {', '.join(refused)}")
    return {**owned, **_DEFAULTS, **(extra or {})}


def render_properties(properties: Mapping[str, PropertyValue]) -> str:
    """Return the text of a Java properties file: ASCII only, sorted, one property a line."""
    lines = []
    for key, value in sorted(properties.items()):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"{_escape(key, key=True)}={_escape(text)}\n")
    return "".join(lines)


def _escape(text: str, *, key: bool = False) -> str:
    """Escape as java.util.Properties reads it: as Latin-1, where `\\uXXXX` is a UTF-16 unit."""
    named = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
    out = []
    for index, char in enumerate(text):
        if char in named:
            out.append(named[char])
        elif (char == " " and (key or index == 0)) or (key and char in "=:#!"):
            out.append(f"\\{char}")
        elif " " <= char <= "~":
            out.append(char)
        else:
            units = char.encode("utf-16-be").hex()
            out += [f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)]
    return "".join(out)


def new_cluster_id() -> str:
    """Return a random cluster id as Kafka writes one: 16 bytes in URL-safe base64, unpadded."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):  # the format tool would read it as an option
            return text


def port_is_free(port: int, host: str = HOST) -> bool:
    """Say whether a server could listen on this port of an address of ours now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the broker does: connections that linger from before a restart are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(*taken: int, host: str = HOST) -> int:
    """Return a free port of `host` that is none of `taken`, below the ephemeral range.

    Raises OSError when a hundred random ones are all in use.
    """
    # The system's randomness: a seed set by a test must not give two processes the same port.
    choice = random.SystemRandom()
    candidates = range(_LOWEST_PORT, max(_ephemeral_start(), _LOWEST_PORT + 1000))
    for _ in range(100):
        port = choice.choice(candidates)
        if port not in taken and port_is_free(port, host):
            return port
    raise OSError(f"no free port found between {candidates.start} and {candidates.stop}")


def _ephemeral_start() -> int:
    try:
        return int(_EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except FileNotFoundError:  # not Linux
        return _USUAL_EPHEMERAL_START
