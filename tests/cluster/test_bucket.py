"""The chart on a store in a bucket: no volume, a login by envFrom, a rollback by its job."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.buckets.conftest import BUCKET, GATEWAY, Gateway
from tests.chart.render import merge
from tests.cluster.conftest import missing
from tests.cluster.kubectl import Cluster, Release, wait_until
from tests.cluster.load import Names, Traffic
from tests.cluster.values import Values, demo_values
from trainer.store.publish import plan_publication, publish_adapter
from trainer.store.remote import open_store
from worker.contract import read_manifest, write_manifest
from worker.demo.models import ensure_model

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

URL = f"s3://{BUCKET}/store"
PARTITIONS = 2


@pytest.fixture
def gateway(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    if not Path(GATEWAY).exists():
        missing("no versitygw: make test-buckets builds it (needs Go)")
    server = Gateway(tmp_path / "s3", host)
    for name, value in server.login.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


def _publish(folder: Path, name: str) -> str:
    """Publish the encoder that ships under this name; return its digest."""
    shipped = ensure_model("encoder").adapter
    shutil.copytree(shipped, folder / name)
    write_manifest(folder / name, replace(read_manifest(shipped), name=name))
    plan = plan_publication(folder / name, open_store(URL), allow_unjudged=True)
    return publish_adapter(plan, force=True, reason="of the test").digest


def test_workers_follow_a_bucket_without_a_volume(
    cluster: Cluster, kafka: str, gateway: Gateway, tmp_path: Path
) -> None:
    """Two workers, a publication and a rollback under load: each message has one result."""
    one = _publish(tmp_path, "one")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket"}}
    cluster.apply([{**secret, "stringData": gateway.login}])
    names = Names.fresh("bucket")
    own: Values = {
        "replicaCount": 2,
        "config": {"model": {"adapter": URL}},
        "envFrom": [{"secretRef": {"name": "bucket"}}],
        "rollback": {"enabled": True},
    }
    values = merge(demo_values(kafka, names, PARTITIONS, "encoder"), own)
    # Merged key by key, the example's claim would stay.
    values["storage"]["adapters"] = {"volume": {}}
    clerk = Release(cluster, "clerk", values)
    clerk.install()
    try:
        wait_until("two workers are ready", lambda: len(clerk.ready()) == 2, 300)
        volumes = {volume["name"] for pod in clerk.pods() for volume in pod["spec"]["volumes"]}
        assert "adapters" not in volumes
        with Traffic(kafka, names, PARTITIONS) as traffic:
            traffic.per_second = 20
            wait_until("one serves", lambda: _serves(traffic) == {one}, 60)
            two = _publish(tmp_path, "two")
            wait_until("two serves", lambda: _serves(traffic) == {two}, 120)
            job = "cronjob/clerk-filing-clerk-rollback"
            cluster.kubectl("create", "job", f"--from={job}", "back")
            cluster.kubectl("wait", "--for=condition=complete", "job/back", "--timeout=180s")
            wait_until("one serves again", lambda: _serves(traffic) == {one}, 120)
            traffic.per_second = 0
            traffic.finish()
    finally:
        cluster.helm("uninstall", "clerk", "--ignore-not-found", "--wait", "--timeout", "3m")


def _serves(traffic: Traffic) -> set[str]:
    """The adapters of the last results."""
    return {result.adapter for result in traffic.results[-40:]}
