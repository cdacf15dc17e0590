"""kube-state-metrics on this machine, for KUBECONFIG's cluster: its metrics of autoscalers.

Built from its Go module the first time (some minutes), and kept next to the node's programs.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.kubectl import Cluster
from tests.cluster.node import CACHE, GO
from worker.demo.kafka_files import free_port
from worker.demo.program import ChildProcess

VERSION = "2.18.0"
FOLDER = CACHE / f"kube-state-metrics-{VERSION}"
PROGRAM = FOLDER / "kube-state-metrics"
_START_S = 60.0


def build() -> Path:
    """Return the program; build it if missing. Raises FileNotFoundError without Go, and
    CalledProcessError."""
    if not PROGRAM.exists():
        if GO is None:
            raise FileNotFoundError("no Go to build kube-state-metrics with")
        # Not "go install": it asks for the list of versions, which not every proxy has.
        found = subprocess.run(
            [GO, "mod", "download", "-json", f"k8s.io/kube-state-metrics/v2@v{VERSION}"],
            cwd="/",
            capture_output=True,
            check=True,
        )
        source = json.loads(found.stdout)["Dir"]
        subprocess.run([GO, "build", "-o", str(PROGRAM), "."], cwd=source, check=True)
    return PROGRAM


@contextmanager
def telling(cluster: Cluster, folder: Path) -> Iterator[str]:
    """Run it over the autoscalers of the cluster's namespace; yield host:port of its metrics."""
    address, log = f"127.0.0.1:{free_port()}", folder / "kube-state-metrics.log"
    child = ChildProcess(
        [
            str(build()),
            f"--kubeconfig={os.environ['KUBECONFIG']}",
            "--resources=horizontalpodautoscalers",
            f"--namespaces={cluster.namespace}",
            "--host=127.0.0.1",
            f"--port={address.rpartition(':')[2]}",
            "--telemetry-host=127.0.0.1",
            f"--telemetry-port={free_port()}",
        ],
        cwd=folder,
        log_path=log,
    )
    try:
        until = time.monotonic() + _START_S
        while not _answers(address):
            assert child.exit_code() is None, log.read_text("utf-8")
            assert time.monotonic() < until, log.read_text("utf-8")
            time.sleep(0.2)
        yield address
    finally:
        child.stop(10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
