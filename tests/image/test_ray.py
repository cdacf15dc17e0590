"""The image ``worker-ray`` as KubeRay runs it: a node, its probe, and ``classify --out --ray``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_onnx import write_tiny_encoder

ROWS = 200
# The flags and the probe that KubeRay 1.5 gives a head node; the job's submitter is a client of the
# dashboard's address.
RUN = """
set -e
ray start --head --num-cpus=2 --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1 \
  --dashboard-agent-listen-port=52365 --disable-usage-stats
sleep 5
wget --tries 10 -T 2 -q -O- http://127.0.0.1:52365/api/local_raylet_healthz | grep success
ray job submit --address http://127.0.0.1:8265 -- \
  clerk-worker classify -s model.adapter=/data/adapter -i /data/archive.jsonl \
    --out /tmp/out --ray 2 --cpus 0.5
cat /tmp/out/part-*
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_node_takes_a_job(engine: Any, ray_image: Any, tmp_path: Path) -> None:
    """Every row is labelled, by a user without rights, and without a network."""
    data = tmp_path / "data"  # readable for the container's user
    write_tiny_encoder(data / "adapter")
    data.chmod(0o755)
    rows = [{"id": f"m{at}", "message": f"where is my card {at}"} for at in range(ROWS)]
    (data / "archive.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    container = engine.containers.run(
        ray_image.id,
        entrypoint=["bash", "-c", RUN],
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "exec", "/var/cache/filing-clerk": "exec,uid=10001,gid=10001"},
        shm_size="256m",
        cap_drop=["ALL"],
        volumes={str(data): {"bind": "/data", "mode": "ro"}},
        detach=True,
    )
    try:
        code = container.wait(timeout=240)["StatusCode"]
        output = container.logs(stdout=True, stderr=False).decode()
        assert code == 0, container.logs().decode()
    finally:
        container.remove(force=True)
    records = [json.loads(line) for line in output.splitlines() if line.startswith('{"')]
    assert len([record for record in records if record.get("label")]) == ROWS
