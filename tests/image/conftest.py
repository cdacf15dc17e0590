"""Docker, the built image, and a Kafka that containers reach.

Needs Docker on Linux and the image that ``make images`` builds; CLERK_TEST_IMAGE names another, and
CLERK_TEST_RAY_IMAGE the one for Ray. If one is missing the tests skip, or fail where CI is set.
Kafka is the local broker, listening at the gateway of a network that leads nowhere else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.network import Network

from worker.demo.broker import LocalBroker

IMAGE = os.environ.get("CLERK_TEST_IMAGE", "filing-clerk-worker-cpu-demo:dev")
RAY_IMAGE = os.environ.get("CLERK_TEST_RAY_IMAGE", "filing-clerk-worker-ray:dev")

# Its helper container would have to be pulled; every fixture here removes what it made.
testcontainers_config.ryuk_disabled = True


def _missing(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    if sys.platform != "linux":
        _missing("container addresses can be reached only on Linux")
    try:
        client = docker.from_env(timeout=300)
        client.ping()
    except DockerException as error:
        _missing(f"no Docker: {error}")
    yield client
    client.close()


def _find_image(engine: Any, name: str) -> Any:
    try:
        return engine.images.get(name)
    except ImageNotFound:
        _missing(f"there is no image {name}: make images")


@pytest.fixture(scope="session")
def image(engine: Any) -> Any:
    return _find_image(engine, IMAGE)


@pytest.fixture(scope="session")
def ray_image(engine: Any) -> Any:
    return _find_image(engine, RAY_IMAGE)


@pytest.fixture(scope="session")
def network(engine: Any) -> Iterator[Network]:
    """A bridge without a way out: containers reach this machine at its gateway, nothing else."""
    with Network(docker_network_kw={"internal": True}) as made:
        yield made


@pytest.fixture(scope="session")
def kafka(engine: Any, network: Network) -> Iterator[str]:
    """Bootstrap servers of a real Kafka that containers in ``network`` reach."""
    gateway = engine.networks.get(network.id).attrs["IPAM"]["Config"][0]["Gateway"]
    with LocalBroker(host=gateway) as broker:
        yield broker.bootstrap_servers
