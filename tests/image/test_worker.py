"""An image's worker labels messages under the strictest container settings."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testcontainers.core.network import Network

from tests.image.conftest import Kind
from tests.image.contained import Contained
from worker.demo.client import Publisher, Seen, Watcher
from worker.demo.models import demo_samples
from worker.demo.plan import DEAD, INPUT, OUTPUT, REVIEW

pytestmark = pytest.mark.timeout(900)  # of the demo's image: mark.long, by the fixture

COUNT = 60
READY_S = 600


@pytest.fixture(scope="module")
def worker(kind: Kind, image: Any, network: Network, kafka: str) -> Iterator[Contained]:
    """A ready worker; it created its topics, as its settings say."""
    settings = {**kind.settings, "CLERK_KAFKA__BOOTSTRAP_SERVERS": kafka}
    started = Contained(image.id, network, settings, mounts=kind.mounts())
    try:
        started.wait_for(lambda: started.ask("/readyz")[0] == 200, READY_S)
        yield started
    finally:
        started.remove()


def test_it_reports_alive_and_ready(worker: Contained) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        status, body = worker.ask(path)
        assert (status, json.loads(body)["ok"]) == (200, True), path


def test_docker_reports_it_healthy(worker: Contained) -> None:
    """The image's own health check works without curl and without a shell."""

    def healthy() -> bool:
        worker.container.reload()
        return bool(worker.container.attrs["State"]["Health"]["Status"] == "healthy")

    worker.wait_for(healthy, 120)


def test_it_has_no_unneeded_rights(worker: Contained) -> None:
    """User 10001, no capabilities, no new privileges, and only two writable folders."""
    status = worker.run("cat", "/proc/1/status")
    assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
    assert re.search(r"^Gid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
    assert re.search(r"^Cap(Eff|Prm)\s*:\s+0+$", status.replace("CapBnd", ""), re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    script = (
        "import os\n"
        "for one in ('/', '/opt/app', '/etc/filing-clerk', '/models', '/adapters', '/tmp',"
        " '/var/cache/filing-clerk'):\n"
        "    print(one, os.access(one, os.W_OK) and not os.statvfs(one).f_flag & os.ST_RDONLY)"
    )
    can = dict(line.split() for line in worker.run("python", "-c", script).splitlines())
    assert {path for path, writable in can.items() if writable == "True"} == {
        "/tmp",
        "/var/cache/filing-clerk",
    }


def test_it_reaches_only_the_broker(worker: Contained, engine: Any, network: Network) -> None:
    """It labels in a network without a way out: nothing is downloaded while it runs."""
    worker.container.reload()
    (joined,) = worker.container.attrs["NetworkSettings"]["Networks"].values()
    assert joined["NetworkID"] == network.id
    assert engine.networks.get(network.id).attrs["Internal"] is True


def test_it_labels_messages(kind: Kind, worker: Contained, kafka: str) -> None:
    """Each message gets one of the adapter's labels, and the metrics count them."""
    watcher = Watcher(kafka, {OUTPUT: "output", REVIEW: "review", DEAD: "dead letter"})
    publisher = Publisher(kafka, INPUT)
    samples = demo_samples(COUNT)
    for sample in samples:
        publisher.publish(sample.id, sample.message)
    publisher.flush()
    seen: dict[str, Seen] = {}
    until = time.monotonic() + 180
    while len(seen) < COUNT and time.monotonic() < until:
        seen |= {result.message_id: result for result in watcher.poll(0.5)}
    watcher.close()
    assert seen.keys() == {sample.id for sample in samples}
    manifest = json.loads((kind.adapter / "manifest.json").read_text(encoding="utf-8"))
    labels = {entry["name"] for entry in manifest["taxonomy"]["labels"]}
    assert {result.value["label"] for result in seen.values() if result.value} <= labels
    known = [sample for sample in samples if sample.label]
    right = sum((seen[sample.id].value or {}).get("label") == sample.label for sample in known)
    assert right / len(known) > 0.6  # the real model: guessing would give a tenth
    _, page = worker.ask("/metrics")
    counts = re.findall(r'^clerk_records_total\{outcome="\w+"\} (\S+)$', page, re.MULTILINE)
    assert sum(map(float, counts)) == COUNT


def test_it_drains_on_sigterm(worker: Contained, kafka: str) -> None:
    """Fetched messages are finished and committed; exit code 0, and no message text in the log."""
    publisher = Publisher(kafka, INPUT)
    samples = demo_samples(COUNT)
    for sample in samples:
        publisher.publish(f"late-{sample.id}", sample.message)
    publisher.flush()
    worker.container.kill("SIGTERM")
    assert worker.ended(120) == 0, worker.output()
    assert worker.events()[-1] == "worker.drained"
    output = worker.output()
    assert not [sample.message for sample in samples if sample.message in output]


def test_an_altered_adapter_is_refused_in_one_line(
    kind: Kind, image: Any, network: Network, kafka: str, tmp_path: Path
) -> None:
    """One flipped bit in the weights: exit code 3, and the line names the file."""
    altered = tmp_path / "altered"
    shutil.copytree(kind.adapter, altered)
    name = "model.onnx" if kind.model == "encoder" else "adapter_model.safetensors"
    weights = altered / name
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    altered.chmod(0o755)
    settings = {
        **kind.settings,
        "CLERK_KAFKA__BOOTSTRAP_SERVERS": kafka,
        "CLERK_MODEL__ADAPTER": "/adapters/altered",
    }
    refused = Contained(image.id, network, settings, mounts={str(altered): "/adapters/altered"})
    try:
        assert refused.ended(180) == 3, refused.output()
        event = json.loads(refused.output().splitlines()[-1])
        assert (event["event"], event["level"], event["exit_code"]) == ("worker.failed", "error", 3)
        assert event["error"].startswith("adapter refused: ")
        assert f"/adapters/altered/{name}" in event["error"]
    finally:
        refused.remove()
