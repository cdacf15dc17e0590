"""What must agree between documents: names, selectors and ports refer to something that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.chart.render import Document, PodSpec, pods

# The Pod Security Standard "restricted", and what is stricter here.
SECURED = {
    "runAsNonRoot": True, "runAsUser": 10001, "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    "readOnlyRootFilesystem": True,
}  # fmt: skip
LABEL = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
DNS_LABEL = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")


def broken(documents: Sequence[Document], external: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield every reference that leads nowhere. ``external`` names objects that the user brings."""
    there = {(document["kind"], document["metadata"]["name"]) for document in documents}
    if len(there) != len(documents):
        yield "two documents of one kind have one name"
    found = list(pods(documents))
    for document in documents:
        yield from _names(document)
        yield from _selects(document, found)
        yield from _points(document, there, external)
    for pod in found:
        yield from _pod(pod, there, external)


def _names(document: Document) -> Iterator[str]:
    name = document["metadata"]["name"]
    longest = 52 if document["kind"] == "CronJob" else 63
    if len(name) > longest or not DNS_LABEL.match(name):
        yield f"{document['kind']} {name}: not a name"
    for key, value in document["metadata"].get("labels", {}).items():
        if not isinstance(value, str) or len(value) > 63 or not LABEL.match(value):
            yield f"{document['kind']} {name}: label {key}={value!r}"
    for key, value in document["metadata"].get("annotations", {}).items():
        if not isinstance(value, str):
            yield f"{document['kind']} {name}: annotation {key}={value!r}"


def _selects(document: Document, found: Sequence[PodSpec]) -> Iterator[str]:
    """Check that a selector matches its own pods and no others."""
    own = document["metadata"].get("labels", {}).get("app.kubernetes.io/component")
    match document["kind"]:
        case "Deployment" | "PodDisruptionBudget" | "PodMonitor":
            selector, wanted = document["spec"]["selector"]["matchLabels"], {own}
        case "Service":
            selector, wanted = document["spec"]["selector"], {own}
        case "NetworkPolicy":
            chosen = document["spec"]["podSelector"]
            selector = chosen["matchLabels"]
            parts = {"app.kubernetes.io/component": selector.get("app.kubernetes.io/component")}
            wanted = {value for value in parts.values() if value}
            for rule in chosen.get("matchExpressions", ()):
                wanted |= set(rule["values"])
            found = [pod for pod in found if pod.labels["app.kubernetes.io/component"] in wanted]
            wanted &= {pod.labels["app.kubernetes.io/component"] for pod in found}
        case _:
            return
    hit = {
        pod.labels["app.kubernetes.io/component"]
        for pod in found
        if selector.items() <= pod.labels.items()
    }
    if hit != wanted:
        yield f"{document['kind']} {document['metadata']['name']} selects {hit}, not {wanted}"


def _points(
    document: Document, there: set[tuple[str, str]], external: frozenset[str]
) -> Iterator[str]:
    """Check that the objects it scales, logs in with or scrapes exist."""
    kind, spec = document["kind"], document.get("spec", {})
    wanted: list[tuple[str, str]] = []
    if kind in ("ScaledObject", "HorizontalPodAutoscaler"):
        target = spec["scaleTargetRef"]
        wanted.append((target["kind"], target["name"]))
    logins = [trigger.get("authenticationRef") for trigger in spec.get("triggers", ())]
    wanted += [("TriggerAuthentication", ref["name"]) for ref in logins if ref]
    wanted += [("Secret", ref["name"]) for ref in spec.get("secretTargetRef", ())]
    wanted += [("ConfigMap", ref["name"]) for ref in spec.get("configMapTargetRef", ())]
    if kind == "ServiceMonitor":
        wanted.append(("Service", document["metadata"]["name"]))
    for missing in wanted:
        if missing not in there and missing[1] not in external:
            yield f"{kind} {document['metadata']['name']}: no {' '.join(missing)}"


def _pod(pod: PodSpec, there: set[tuple[str, str]], external: frozenset[str]) -> Iterator[str]:
    account = pod.spec.get("serviceAccountName", "default")
    if account not in external | {"default"} and ("ServiceAccount", account) not in there:
        yield f"{pod.name}: no service account {account}"
    volumes = [volume["name"] for volume in pod.spec.get("volumes", ())]
    yield from _twice(pod, "volumes", volumes)
    yield from _twice(pod, "containers", [container["name"] for container in pod.containers])
    for volume in pod.spec.get("volumes", ()):
        for kind, name in _objects(volume):
            if (kind, name) not in there and name not in external:
                yield f"{pod.name}: volume {volume['name']}: no {kind} {name}"
    mounts = [
        mount["name"] for container in pod.containers for mount in container.get("volumeMounts", ())
    ]
    if differ := set(mounts) ^ set(volumes):
        yield f"{pod.name}: mounted without a volume, or a volume that nothing mounts: {differ}"
    for container in pod.containers:
        yield from _container(pod, container, external)


def _twice(pod: PodSpec, what: str, names: Sequence[str]) -> Iterator[str]:
    if len(set(names)) != len(names):
        yield f"{pod.name}: two {what} of one name: {names}"


def _objects(volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "configMap" in volume:
        yield "ConfigMap", volume["configMap"]["name"]
    if "secret" in volume:
        yield "Secret", volume["secret"]["secretName"]
    if "persistentVolumeClaim" in volume:
        yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]


def _container(
    pod: PodSpec, container: Mapping[str, Any], external: frozenset[str]
) -> Iterator[str]:
    yield from _twice(pod, "variables", [variable["name"] for variable in container.get("env", ())])
    places = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
    yield from _twice(pod, "mounts", places)
    for variable in container.get("env", ()):
        if "value" in variable and not isinstance(variable["value"], str):
            yield f"{pod.name}: {variable['name']} is not a text"
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        if secret and secret["name"] not in external:
            yield f"{pod.name}: {variable['name']} from {secret['name']}"
    ports = {port["name"] for port in container.get("ports", ())}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe in container and container[probe]["httpGet"]["port"] not in ports:
            yield f"{pod.name}: {probe} asks a port that is not there"
