"""Apache Kafka's jars: fetched once, checked against pinned digests, kept in a cache folder.

    <cache>/kafka-4.2.1/libs/*.jar

To move to another version: change the coordinates below, empty `kafka_jars.json` to `{}`, call
`fetch_jars` on a scratch folder and pin the digests of what it returns, after reading the list.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
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
