"""The local broker's files: Apache Kafka's jars, and its properties.

    <cache>/kafka-4.2.1/libs/*.jar

The jars are downloaded once and checked against pinned digests. To change the version: change the
coordinates below, empty `kafka_jars.json` to `{}`, call `fetch_jars` on a scratch folder, review
the list of jars, and pin their digests.
"""

import base64
import hashlib
import json
import random
import shutil
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from worker.common.cache import cache_folder, made_once

# Not a newer one: Kafka 4.3.0 to 4.4.0 take a partition without a leader for a deleted one
# (KAFKA-20734) and write no end of its transactions. After a kill of the only broker aborted
# results became readable, and offsets stayed open for ever.
KAFKA_VERSION = "4.2.1"
KAFKA_SIZE_MB = 45

# The log4j and slf4j lines give the broker a log: Kafka has no binding of its own.
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
# Ports come from below the ephemeral range. A client that reconnects to a dead port within it may
# get the same port as its source, connect to itself, and keep a restarting broker from binding.
_LOWEST_PORT = 10_000
_USUAL_EPHEMERAL_START = 32_768
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Settings for a single node, and short waits to make tests and demonstrations fast.
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
    # A rebalance with the newer protocol takes several heartbeats, of 5 s each by default.
    "group.consumer.min.heartbeat.interval.ms": 500,
    "group.consumer.heartbeat.interval.ms": 1000,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    # After a kill -9 the node starts as the leader and loads the group's offsets. When its old
    # session expires, it loses the leadership, regains it, and loads them again. If the first load
    # ends after the second began, Kafka 4.4 mistakes its end for the second's, and the group keeps
    # the offsets of a part of the log. So the session timeout is Kafka's default rather than a
    # short one (a restart waits for it, 11 s): the first load is then over in time. And offsets
    # are read in small pieces, because a load stops between pieces if the leadership is lost.
    "broker.session.timeout.ms": 9000,
    "broker.heartbeat.interval.ms": 300,
    "offsets.load.buffer.size": 65_536,
}


class BrokerError(RuntimeError):
    """The local broker cannot be downloaded, started or reached."""


def pinned_jars() -> dict[str, str]:
    """Return the pinned sha256 of each jar by file name (from `kafka_jars.json`)."""
    text = resources.files(__package__).joinpath("kafka_jars.json").read_text(encoding="utf-8")
    pins: dict[str, str] = json.loads(text)
    return pins


def fetch_jars(scratch: Path) -> list[Path]:
    """Resolve Kafka's dependencies and download them below `scratch`; return the jars' paths.

    Takes about 10 s. Uses the `[repositories]` of jgo's configuration file, for mirrors. Raises
    BrokerError without jgo, or if a download fails.
    """
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise BrokerError(
            "jgo is not installed: install filing-clerk with its extra 'demo'"
        ) from error
    # When jgo is interrupted, it leaves a truncated file that it trusts the next time. So it gets
    # a temporary repository rather than the one in the user's home.
    context = MavenContext(
        resolver=PythonResolver(),
        repo_cache=scratch,
        remote_repos=GlobalSettings.load().repositories or None,
        timeout=_HTTP_TIMEOUT_S,
    )
    try:
        # Without the `!` jgo applies each coordinate's managed versions to all the others, and
        # log4j's replace kafka-clients 4.2.1 by 3.9.1.
        wanted = [context.create_dependency(f"{coordinate}!") for coordinate in COORDINATES]
        inputs, transitive = context.resolver.resolve(wanted)
        needed = [*inputs, *(d for d in transitive if d.scope in ("compile", "runtime"))]
        return [dependency.artifact.resolve() for dependency in needed]
    # The XML parser raises SyntaxError if a proxy answers with an HTML page.
    except (OSError, RuntimeError, ValueError, SyntaxError) as error:
        raise BrokerError(f"Apache Kafka {KAFKA_VERSION} cannot be fetched: {error}") from error


def ensure_kafka(
    cache: Path | None = None,
    on_event: OnEvent | None = None,
    *,
    pins: Mapping[str, str] | None = None,
    fetch: Fetch = fetch_jars,
) -> Path:
    """Return the folder with exactly the pinned jars; download them the first time.

    Later calls use no network and write nothing, so the cache may be read-only. Every call hashes
    the jars (0.1 s). Safe for concurrent processes. Raises BrokerError if a download fails, or if a
    jar is missing, unknown or different.
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
    """Raise BrokerError for the first jar that is missing, unknown or not as pinned."""
    present = {path.name for path in libs.glob("*.jar")}
    for name in sorted(present | pins.keys()):
        if name not in present:
            raise BrokerError(f"{name} is missing from {libs}; delete {libs.parent} to fetch again")
        if name not in pins:
            raise BrokerError(f"{name} in {libs} is not a pinned jar; delete it")
        with (libs / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != pins[name]:
            raise BrokerError(
                f"{name} in {libs} has sha256 {digest}, but {pins[name]} is pinned; delete "
                f"{libs.parent} to fetch again"
            )


def server_properties(
    port: int,
    controller_port: int,
    extra: Mapping[str, PropertyValue] | None = None,
    host: str = HOST,
    listeners: Mapping[str, tuple[int, str]] | None = None,
) -> dict[str, PropertyValue]:
    """Return the properties of one KRaft node; `extra` adds to and overrides the defaults.

    Clients connect to ``host``, an address of this machine, without security, and to further
    ``listeners`` (port and security protocol by name), whose certificates and users are in
    ``extra``; the controller listens on loopback. The data folder is relative to the broker's
    working directory. Raises ValueError if `extra` sets an address, identity or data property.
    """
    named = {"CLIENT": (port, "PLAINTEXT"), **(listeners or {})}
    served = ",".join(f"{name}://{host}:{at}" for name, (at, _) in named.items())
    protocols = ",".join(f"{name}:{protocol}" for name, (_, protocol) in named.items())
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
    """Return the text of a Java properties file: sorted, one property per line."""
    lines = []
    for key, value in sorted(properties.items()):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"{key}={escaped}\n")
    return "".join(lines)


def new_cluster_id() -> str:
    """Return a random cluster id in Kafka's form: 16 bytes in URL-safe base64, unpadded."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):  # the format tool would parse it as an option
            return text


def port_is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on this port of a local address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Like the broker: lingering connections from before a restart do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(*taken: int, host: str = HOST) -> int:
    """Return a free port of `host` below the ephemeral range, except `taken`. Raises OSError if a
    hundred random ones are in use."""
    # Not the seeded generator: a test's seed must not give two processes the same port.
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
