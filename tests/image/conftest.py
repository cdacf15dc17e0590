"""Docker, the built images of workers, and a Kafka that containers reach.

Needs Docker on Linux and what ``make images IMAGES="worker-encoder worker-cpu-demo worker-ray"``
builds, under CLERK_TEST_IMAGES (``filing-clerk``) and CLERK_TEST_TAG (``dev``). If an image is
missing its tests skip, or fail where CI is set. The large one's tests are long.
Kafka is the local broker, listening at the gateway of a network that leads nowhere else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.network import Network

from worker.demo.broker import LocalBroker
from worker.demo.models import ModelName, ensure_model

PREFIX = os.environ.get("CLERK_TEST_IMAGES", "filing-clerk")
TAG = os.environ.get("CLERK_TEST_TAG", "dev")


@dataclass(frozen=True, slots=True)
class Kind:
    """An image of workers: its packages' lock, and what it needs to label the demo's messages.
    ``folder`` is where the adapter is, ``within`` whether the image brings it."""

    target: str
    lock: str
    model: ModelName
    folder: str = "/adapters/demo"
    within: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def adapter(self) -> Path:
        """The adapter's directory on this machine."""
        return ensure_model(self.model).adapter

    def mounts(self) -> dict[str, str]:
        """Folders of this machine by their places in the container."""
        return {} if self.within else {str(self.adapter): self.folder}


ENCODER = Kind(
    "worker-encoder",
    "image-encoder.txt",
    "encoder",
    settings={
        "CLERK_KAFKA__CREATE_TOPICS": "true",
        "CLERK_MODEL__ADAPTER": "/adapters/demo",
    },
)
DEMO = Kind("worker-cpu-demo", "image-cpu.txt", "adapter", within=True)

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


def _find_image(engine: Any, target: str) -> Any:
    name = f"{PREFIX}-{target}:{TAG}"
    try:
        return engine.images.get(name)
    except ImageNotFound:
        _missing(f"there is no image {name}: make images IMAGES={target}")


@pytest.fixture(
    scope="session",
    params=[ENCODER, pytest.param(DEMO, marks=pytest.mark.long)],
    ids=lambda kind: kind.target,
)
def kind(request: pytest.FixtureRequest) -> Kind:
    """The image under test."""
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def image(engine: Any, kind: Kind) -> Any:
    return _find_image(engine, kind.target)


@pytest.fixture(scope="session")
def ray_image(engine: Any) -> Any:
    return _find_image(engine, "worker-ray")


@pytest.fixture(scope="session")
def network(engine: Any) -> Iterator[Network]:
    """A bridge without a way out: containers reach this machine at its gateway, nothing else."""
    with Network(docker_network_kw={"internal": True}) as made:
        yield made


@pytest.fixture(scope="session")
def kafka(kind: Kind, engine: Any, network: Network) -> Iterator[str]:
    """Bootstrap servers of a real Kafka that containers in ``network`` reach; each image has its
    own, because topics and message ids are the same."""
    assert kind
    gateway = engine.networks.get(network.id).attrs["IPAM"]["Config"][0]["Gateway"]
    with LocalBroker(host=gateway) as broker:
        yield broker.bootstrap_servers
