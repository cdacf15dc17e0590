"""kubectl and helm as a person calls them, in one namespace of the cluster of KUBECONFIG."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from tests.chart.get_helm import find_helm
from tests.chart.render import CHART

Document = dict[str, Any]

_CALL_S = 300.0


class Failed(AssertionError):
    """A command failed; the text ends with its output."""


class Cluster:
    """One namespace. Every call raises Failed, with the command's output, if it fails."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._proxy: subprocess.Popen[str] | None = None
        self._proxy_url = ""

    def kubectl(self, *words: str, given: str | None = None, timeout_s: float = _CALL_S) -> str:
        """Run kubectl and return its output. ``given`` is its standard input."""
        return self._run(["kubectl", "-n", self.namespace, *words], given, timeout_s)[0]

    def warnings(self, *words: str, given: str) -> list[str]:
        """Run kubectl and return the API server's warnings."""
        said = self._run(["kubectl", "-n", self.namespace, *words], given, _CALL_S)[1]
        return [line for line in said.splitlines() if line.startswith("Warning")]

    def helm(self, *words: str, given: str | None = None) -> str:
        """Run helm and return its output, warnings included."""
        program = find_helm()
        assert program is not None
        return "".join(self._run([program, "-n", self.namespace, *words], given, _CALL_S))

    def get(self, *words: str) -> Any:
        """An object, or a list's items."""
        found = json.loads(self.kubectl("get", *words, "-o", "json"))
        return found["items"] if found["kind"].endswith("List") else found

    def exists(self, *words: str) -> bool:
        """Whether an object, or any that matches a selector, exists."""
        return bool(self.kubectl("get", *words, "--ignore-not-found", "-o", "name").strip())

    def ask(self, pod: str, port: int, path: str) -> tuple[int, str]:
        """GET a path of a pod through the API server: status and body. Status 0: no answer."""
        try:
            with urllib.request.urlopen(self.url(pod, port, path), timeout=15) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def url(self, pod: str, port: int, path: str) -> str:
        """The URL of a pod's path through the API server."""
        if self._proxy is None:
            self._start_proxy()
        pods = f"{self._proxy_url}/api/v1/namespaces/{self.namespace}/pods"
        return f"{pods}/{pod}:{port}/proxy{path}"

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        """Forward a local port to a pod's (``deployment/NAME``); yield the URL."""
        command = ["kubectl", "-n", self.namespace, "port-forward", target, f":{port}"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            said = child.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 8090
            if "->" not in said:
                raise Failed(f"{' '.join(command)}: {said}")
            yield f"http://{said.split()[2]}"
        finally:
            child.terminate()
            child.communicate(timeout=30)

    def close(self) -> None:
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.communicate(timeout=30)

    def apply(self, documents: Iterable[Document]) -> None:
        text = yaml.safe_dump_all(documents)
        self.kubectl("apply", "--server-side", "-f", "-", given=text)

    def has_dns(self) -> bool:
        """Whether pods can resolve Services."""
        return self.exists("service", "kube-dns", "--namespace", "kube-system")

    def everything(self) -> set[str]:
        """Names of all objects in the namespace, except events and those that every namespace
        has."""
        kinds = self.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
        wanted = ",".join(kind for kind in kinds if not kind.startswith(("events", "pods.metrics")))
        found = self.kubectl("get", wanted, "-o", "name", "--ignore-not-found").split()
        return set(found) - {"configmap/kube-root-ca.crt", "serviceaccount/default"}

    def _start_proxy(self) -> None:
        """On loopback, only for pods of this namespace, because it needs no login."""
        only = f"^/api/v1/namespaces/{self.namespace}/pods/[^/]+/proxy/.*"
        command = ["kubectl", "proxy", "--port=0", f"--accept-paths={only}"]
        self._proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout is not None
        said = self._proxy.stdout.readline()
        self._proxy_url = f"http://{said.split()[-1]}"

    @staticmethod
    def _run(command: list[str], given: str | None, timeout_s: float) -> tuple[str, str]:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, timeout=timeout_s
        )
        if done.returncode != 0:
            raise Failed(f"{' '.join(command[:12])}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout, done.stderr


def have_kubectl() -> bool:
    return shutil.which("kubectl") is not None


def wait_until(
    what: str, reached: Callable[[], object], timeout_s: float, every_s: float = 0.5
) -> None:
    """Wait until something holds. Fails with ``what``."""
    until = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > until:
            raise Failed(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(every_s)


class Release:
    """An installed chart and its workers."""

    def __init__(self, cluster: Cluster, name: str, values: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.chart: tuple[str, ...] = (str(CHART),)
        self.name = name
        self.values = values
        self.workers = f"app.kubernetes.io/instance={name},app.kubernetes.io/component=worker"
        self.deployment = f"deployment/{name}-filing-clerk"

    def install(self, *words: str) -> str:
        return self._helm("install", *words)

    def upgrade(self, *words: str) -> str:
        return self._helm("upgrade", *words)

    def pods(self) -> list[Document]:
        """Pods of its workers, oldest first, terminating ones included."""
        found: list[Document] = self.cluster.get("pods", "-l", self.workers)
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def pod(self) -> str:
        (living,) = [pod for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]]
        return str(living["metadata"]["name"])

    def ready(self) -> list[str]:
        return [
            pod["metadata"]["name"]
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"] and condition(pod, "Ready")
        ]

    def wait_for_ready(self, count: int, timeout_s: float = 300) -> None:
        def reached() -> bool:
            return len(self.pods()) == len(self.ready()) == count

        wait_until(f"{count} ready workers of {self.name}", reached, timeout_s)

    def ask(self, pod: str, path: str) -> tuple[int, str]:
        """GET a path of a worker through the API server: status and body."""
        return self.cluster.ask(pod, 8080, path)

    def events(self, pod: str) -> list[dict[str, Any]]:
        """The JSON lines of a worker's log."""
        lines = self.cluster.kubectl("logs", pod, "-c", "worker").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _helm(self, verb: str, *words: str) -> str:
        given = yaml.safe_dump(dict(self.values))
        return self.cluster.helm(verb, self.name, *self.chart, *words, "-f", "-", given=given)


def condition(pod: Document, kind: str) -> bool:
    found = {entry["type"]: entry["status"] for entry in pod["status"].get("conditions", [])}
    return found.get(kind) == "True"


def container(pod: Document) -> Document:
    """The status of the worker's container."""
    (status,) = pod["status"]["containerStatuses"]
    return dict(status)


@contextmanager
def watching(cluster: Cluster, pod: str) -> Iterator[list[Document]]:
    """Follow a pod. After the context the list holds each end of its container. A deleted pod's
    status is gone, so it must be watched before."""
    ends: list[Document] = []
    command = ["kubectl", "-n", cluster.namespace, "get", "pod", pod, "--watch", "-o", "json"]
    with tempfile.TemporaryFile("w+") as out:
        follower = subprocess.Popen(command, stdout=out)
        try:
            yield ends
            time.sleep(1)  # for requests in progress
        finally:
            follower.terminate()
            follower.wait(10)
            out.seek(0)
            for document in _documents(out.read()):
                ended = container(document)["state"].get("terminated")
                if ended and ended not in ends:
                    ends.append(ended)


def _documents(text: str) -> Iterator[Document]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        found, at = decoder.raw_decode(text, at)
        yield found
        while at < len(text) and text[at].isspace():
            at += 1
