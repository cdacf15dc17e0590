"""Each example from an empty namespace, by the commands of its own header, to labels in Kafka.

The commands run as written, except: Kafka's address and the words that the header leaves out
("..."), and making and pushing images, since .ci/cluster loads them under the examples' names. The
trainer's job trains where CLERK_TEST_TRAINER_IMAGE names its image (cluster_trainer in .ci/cluster
makes one); otherwise a ready adapter takes the place of the one it would publish. What the test
node lacks is in stand_in/, file by file; its storage is folders of this machine, its GPUs a number
in the node's status. Of KEDA and the Prometheus operator there are only the definitions.
"""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.render import EXAMPLE_FILES, ROOT, Document, merge
from tests.cluster import training
from tests.cluster.conftest import missing
from tests.cluster.headers import GROUP, NAMES, NAMESPACE, commands, path_with_helm, run
from tests.cluster.kubectl import Cluster, Release, wait_until
from tests.cluster.load import Traffic
from tests.cluster.test_examples import what_examples_name  # noqa: F401 - a fixture
from tests.cluster.values import LABEL, volume
from tests.support.secure_broker import SCRAM_PASSWORD, SecureBroker, secure_broker
from worker.contract import read_manifest
from worker.contract.store import Pointer, read_pointer, write_pointer
from worker.demo.models import ModelName, ensure_model

pytestmark = pytest.mark.timeout(2400)

MESSAGES = 40
LOGIN = "of-the-test"
"""Replaces the words that a header leaves out."""
READY_S = 1200.0
CLAIMS: dict[str, dict[str, tuple[str, ...]]] = {
    "one-gpu": {"": ("models", "adapters")},
    "encoder": {"": ("adapters",)},
    "air-gapped": {"": ("adapters",)},
    "keda": {
        "shared": (
            "clerk-filing-clerk-models", "clerk-filing-clerk-adapters", "clerk-cache",
            "support-dataset", "support-runs", "support-decisions", "support-proposals",
        )
    },
}  # fmt: skip
RIGHTS = (
    ("TOPIC", "support.*", "READ"),
    ("TOPIC", "support.*", "WRITE"),
    ("TOPIC", "support.*", "CREATE"),
    ("TOPIC", "support.*", "DESCRIBE_CONFIGS"),
    ("GROUP", GROUP, "READ"),
    ("TRANSACTIONAL_ID", f"{GROUP}.*", "WRITE"),
)
TRAIN = "kubectl -n support create job --from=cronjob/clerk-filing-clerk-trainer"


@pytest.fixture
def broker(host: str, tmp_path: Path) -> Iterator[SecureBroker]:
    """A Kafka with TLS, SCRAM and client certificates that pods reach, for this example."""
    with secure_broker(tmp_path, host) as found:
        for user in ("User:scram-clerk", "User:CN=clerk"):
            found.allow(user, RIGHTS)
        yield found


class Desk:
    """The folder in which the commands are typed, with its files."""

    def __init__(self, folder: Path, broker: SecureBroker, model: ModelName) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "helm").symlink_to(ROOT / "helm")
        shutil.copytree(ROOT / "config", folder / "config")
        given = ensure_model(model)
        if given.base is None:
            (folder / "Qwen2.5-7B-Instruct").mkdir()
        else:
            shutil.copytree(given.base, folder / "Qwen2.5-7B-Instruct")
        _publish(given.adapter, folder / "store")
        if training.IMAGE:
            training.prepare(folder / "export").rename(folder / "dataset")
            shutil.copy(training.RECIPE, folder / "config" / "trainer.toml")
        else:
            (folder / "dataset").mkdir()
            (folder / "dataset" / "dataset.json").write_text("{}")
        client = broker.ca.sign("clerk")
        shutil.copy(broker.ca.certificate, folder / "ca.crt")
        shutil.copy(client.certificate, folder / "tls.crt")
        shutil.copy(client.key, folder / "tls.key")
        self.variables = {"PATH": path_with_helm(folder / "bin")}


def _publish(adapter: Path, store: Path) -> None:
    """A shipped adapter and the pointer, as clerk-trainer publish leaves them."""
    manifest = read_manifest(adapter)
    shutil.copytree(adapter, store / manifest.digest)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_pointer(
        store, Pointer(manifest.digest, manifest.name, now, None, "tests", None, "publish")
    )


@contextmanager
def volumes(cluster: Cluster, example: str, folder: Path) -> Iterator[dict[str, Path]]:
    """Folders of this machine for the example's claims."""
    made: dict[str, Path] = {}
    documents: list[Document] = []
    for storage_class, claims in CLAIMS.get(example, {}).items():
        for claim in claims:
            made[claim] = folder / claim
            documents.append(volume(made[claim], NAMESPACE, claim, storage_class))
    if documents:
        cluster.apply(documents)
    yield made
    cluster.kubectl("delete", "pv", "-l", LABEL, "--wait=false")


@contextmanager
def model_store(host: str, folder: Path) -> Iterator[list[dict[str, str]]]:
    """Serve the base model's files with the login of the header; yield their entries for
    download.files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") == f"Bearer {LOGIN}":
                super().do_GET()
            else:
                self.send_error(401)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing."""

    server = http.server.ThreadingHTTPServer((host, 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [
            {
                "url": f"http://{host}:{server.server_port}/{path.name}",
                "path": f"/models/Qwen2.5-7B-Instruct/{path.name}",
                "sha256": sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(folder.iterdir())
        ]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def node(cluster: Cluster) -> Iterator[None]:
    """The node reports two GPUs, a worker's and the trainer's. Its folders must be this
    machine's, or the claims could not be created."""
    (found,) = cluster.get("nodes")
    name = found["metadata"]["name"]
    if not Path("/run/filing-clerk-containerd.sock").exists() and not cluster.exists(
        "storageclass"
    ):
        missing("no storage class, and the node is not this machine")
    status = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "2"}]
    cluster.kubectl("patch", "node", name, "--subresource=status", "--type=json",
                    "-p", json.dumps(status))  # fmt: skip
    cluster.kubectl("label", "node", name, "nvidia.com/gpu.present=true", "--overwrite")
    yield
    status[0]["op"] = "remove"
    cluster.kubectl("patch", "node", name, "--subresource=status", "--type=json",
                    "-p", json.dumps(status))  # fmt: skip
    cluster.kubectl("label", "node", name, "nvidia.com/gpu.present-")


# The desk's needs PostgreSQL, an Ingress and an OpenID provider; test_desk.py runs it on SQLite.
@pytest.mark.parametrize(
    "example",
    [
        # The others load a language model on two cores.
        pytest.param(path, id=path.stem, marks=() if path.stem == "encoder" else pytest.mark.long)
        for path in EXAMPLE_FILES
        if path.stem != "desk"
    ],
)
@pytest.mark.usefixtures("what_examples_name", "node")
def test_an_example_works_by_the_commands_of_its_header(
    cluster: Cluster,
    host: str,
    broker: SecureBroker,
    example: Path,
    tmp_path: Path,
    note: Callable[[str], None],
) -> None:
    """The workers become ready, and each published message is labelled once."""
    model: ModelName = "encoder" if example.stem == "encoder" else "adapter"
    desk = Desk(tmp_path / "desk", broker, model)
    if example.stem == "keda":  # the header creates it
        cluster.kubectl("delete", "priorityclass", "support", "--ignore-not-found")
    support = Cluster(NAMESPACE)
    assert not cluster.exists("namespace", NAMESPACE), f"the namespace {NAMESPACE} already exists"
    kafka = (
        broker.address_of({"keda": "SASL", "air-gapped": "MTLS"}[example.stem])
        if example.stem in {"keda", "air-gapped"}
        else broker.servers
    )
    with ExitStack() as stack:
        folders = stack.enter_context(volumes(cluster, example.stem, tmp_path / "volumes"))
        files = stack.enter_context(model_store(host, desk.folder / "Qwen2.5-7B-Instruct"))
        partitions = 12 if example.stem == "keda" else 1
        if example.stem == "air-gapped":
            broker.create_topics((NAMES.inputs, *NAMES.sinks))
        release = Release(support, "clerk", {})
        stack.callback(_remove, cluster)
        own = {"config": {"kafka": {"bootstrap_servers": kafka}}}
        if example.stem == "keda":
            own |= {"download": {"files": files}}  # type: ignore[dict-item]
            if training.IMAGE:
                own = merge(own, training.image_values())
        given = desk.folder / "given.yaml"
        given.write_text(yaml.safe_dump(own))
        for command in commands(example):
            if command.startswith("docker ") or (command.startswith(TRAIN) and not training.IMAGE):
                continue  # the images are already there
            run(_filled_in(command, example, kafka, given), desk.folder, desk.variables)
        if example.stem == "keda":
            store = folders["clerk-filing-clerk-adapters"]
            wait_until("workers wait for an adapter", lambda: _waits(release), READY_S)
            _first_adapter(support, store, desk, note)
            if training.IMAGE:
                training.propose_in_a_quiet_week(support, folders["support-decisions"], note)
        release.wait_for_ready(1, READY_S)
        with Traffic(broker.servers, NAMES, partitions) as traffic:
            traffic.publish(MESSAGES)
            wait_until("every message has its label", lambda: len(traffic.results) >= MESSAGES, 300)
        assert len({result.source for result in traffic.results}) == MESSAGES
        assert len(traffic.results) == MESSAGES
        assert not [result for result in traffic.results if result.topic == NAMES.dead]


def _first_adapter(support: Cluster, store: Path, desk: Desk, note: Callable[[str], None]) -> None:
    """The header's last command started a job that makes it; without the trainer's image it is
    copied."""
    if not training.IMAGE:
        shutil.copytree(desk.folder / "store", store, dirs_exist_ok=True)
        return
    training.await_job(support, "train-1", READY_S, note)
    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.name, pointer.event) == ("shop-support", "force")


def _filled_in(command: str, example: Path, kafka: str, given: Path) -> str:
    filled = (
        command.replace("kafka:9092", kafka)
        .replace("username=clerk --from-literal=password=...",
                 f"username=scram-clerk --from-literal=password={SCRAM_PASSWORD}")
        .replace("...", LOGIN)
    )  # fmt: skip
    if filled.startswith("helm install"):
        stand_in = Path(__file__).parent / "stand_in" / example.name
        named = [path for path in (stand_in, given) if path.exists()]
        filled += "".join(f" -f {path}" for path in named)
    return filled


def _waits(release: Release) -> bool:
    return any(
        status["name"] == "adapter" and "running" in status["state"]
        for pod in release.pods()
        for status in pod["status"].get("initContainerStatuses", ())
    )


def _remove(cluster: Cluster) -> None:
    cluster.helm("uninstall", "clerk", "-n", NAMESPACE, "--ignore-not-found")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=240s")
    cluster.kubectl("delete", "priorityclass", "support", "--ignore-not-found")
