"""Messages and labels of a Java client, and their bytes by kcat: run by run.sh, with Apicurio's
registry at CLERK_TEST_SCHEMA_REGISTRY."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.ports.test_schema_registry import RegistryArena
from tests.support.schema_registry import LocalRegistry
from worker.demo.broker import LocalBroker

HERE = Path(__file__).parent
COUNT = 20
SHAPES = ("avro", "json-schema")


def main(classes: str) -> None:
    native = os.environ["CLERK_TEST_SCHEMA_REGISTRY"].partition("/apis/")[0] + "/apis/registry/v3"
    with ExitStack() as stack:
        servers = stack.enter_context(LocalBroker()).bootstrap_servers
        registry = LocalRegistry()
        stack.callback(registry.stop)
        for shape in SHAPES:
            for label in SHAPES:
                arena = RegistryArena(servers, stack, partitions=2)
                arena.set_up(registry, label)
                code, said = arena.make_topics()
                assert code == 0, said
                worker = arena.start_worker()
                worker.wait_until_ready()
                outputs = f"{arena.topics['out']},{arena.topics['review']}"
                done = subprocess.run(
                    ["java", "-cp", classes, "RoundTrip", servers, native, arena.topics["in"],
                     outputs, str(COUNT), shape, label],
                    cwd=HERE, capture_output=True, text=True, timeout=180, check=False,
                )  # fmt: skip
                assert done.stdout.strip() == f"{COUNT} {COUNT}", done.stdout + done.stderr
                for topic in (arena.topics["in"], arena.topics["review"]):
                    check_bytes(servers, topic)
                assert arena.stop(worker) == 0
                print(f"{shape} in, {label} out: {COUNT} of {COUNT} by a Java client")


def check_bytes(servers: str, topic: str) -> None:
    """A zero byte and four of an id stand before the content."""
    flags = ("-C", "-q", "-o", "beginning", "-c", "1", "-f", "%s")
    value = subprocess.run(
        ["kcat", "-b", servers, "-t", topic, *flags], capture_output=True, check=True, timeout=60
    ).stdout
    assert value[0] == 0
    assert int.from_bytes(value[1:5], "big") < 1000
    assert len(value) > 20


if __name__ == "__main__":
    main(sys.argv[1])
