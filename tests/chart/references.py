"""What must agree between documents: names lead somewhere, selectors match, ports are there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.chart.render import Document, PodSpec, pods

LABEL = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
DNS_LABEL = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")


def broken(documents: Sequence[Document], external: frozenset[str] = frozenset()) -> Iterator[str]:
    """Give every reference that leads nowhere. ``external`` are objects that the user brings."""
    there = {(one["kind"], one["metadata"]["name"]) for one in documents}
    if len(there) != len(documents):
        yield "two documents of one kind have one name"
    found = list(pods(documents))
    for one in documents:
        yield from _names(one)
        yield from _selects(one, found)
        yield from _points(one, there, external)
    for pod in found:
        yield from _pod(pod, there, external)


def _names(one: Document) -> Iterator[str]:
    name = one["metadata"]["name"]
    longest = 52 if one["kind"] == "CronJob" else 63
    if len(name) > longest or not DNS_LABEL.match(name):
        yield f"{one['kind']} {name}: not a name"
    for key, value in one["metadata"].get("labels", {}).items():
        if not isinstance(value, str) or len(value) > 63 or not LABEL.match(value):
            yield f"{one['kind']} {name}: label {key}={value!r}"
    for key, value in one["metadata"].get("annotations", {}).items():
        if not isinstance(value, str):
            yield f"{one['kind']} {name}: annotation {key}={value!r}"


def _selects(one: Document, found: Sequence[PodSpec]) -> Iterator[str]:
    """A selector matches the pods that it is for, and no others."""
    match one["kind"]:
        case "Deployment" | "PodDisruptionBudget" | "PodMonitor":
            selector, wanted = one["spec"]["selector"]["matchLabels"], {"worker"}
        case "Service":
            selector, wanted = one["spec"]["selector"], {"worker"}
        case "NetworkPolicy":
            pod = one["spec"]["podSelector"]
            selector = pod["matchLabels"]
            parts = {"app.kubernetes.io/component": selector.get("app.kubernetes.io/component")}
            wanted = {value for value in parts.values() if value}
            for rule in pod.get("matchExpressions", ()):
                wanted |= set(rule["values"])
            found = [one for one in found if one.labels["app.kubernetes.io/component"] in wanted]
            wanted &= {one.labels["app.kubernetes.io/component"] for one in found}
        case _:
            return
    hit = {
        pod.labels["app.kubernetes.io/component"]
        for pod in found
        if selector.items() <= pod.labels.items()
    }
    if hit != wanted:
        yield f"{one['kind']} {one['metadata']['name']} selects {hit}, not {wanted}"


def _points(one: Document, there: set[tuple[str, str]], external: frozenset[str]) -> Iterator[str]:
    """What it scales, logs in with or scrapes is there."""
    kind, spec = one["kind"], one.get("spec", {})
    wanted: list[tuple[str, str]] = []
    if kind in ("ScaledObject", "HorizontalPodAutoscaler"):
        target = spec["scaleTargetRef"]
        wanted.append((target["kind"], target["name"]))
    logins = [one.get("authenticationRef") for one in spec.get("triggers", ())]
    wanted += [("TriggerAuthentication", ref["name"]) for ref in logins if ref]
    wanted += [("Secret", ref["name"]) for ref in spec.get("secretTargetRef", ())]
    wanted += [("ConfigMap", ref["name"]) for ref in spec.get("configMapTargetRef", ())]
    if kind == "ServiceMonitor":
        wanted.append(("Service", one["metadata"]["name"]))
    for missing in wanted:
        if missing not in there and missing[1] not in external:
            yield f"{kind} {one['metadata']['name']}: no {' '.join(missing)}"


def _pod(pod: PodSpec, there: set[tuple[str, str]], external: frozenset[str]) -> Iterator[str]:
    account = pod.spec.get("serviceAccountName", "default")
    if account not in external | {"default"} and ("ServiceAccount", account) not in there:
        yield f"{pod.name}: no service account {account}"
    volumes = [volume["name"] for volume in pod.spec.get("volumes", ())]
    yield from _twice(pod, "volumes", volumes)
    yield from _twice(pod, "containers", [one["name"] for one in pod.containers])
    for volume in pod.spec.get("volumes", ()):
        for kind, name in _objects(volume):
            if (kind, name) not in there and name not in external:
                yield f"{pod.name}: volume {volume['name']}: no {kind} {name}"
    mounts = [mount["name"] for one in pod.containers for mount in one.get("volumeMounts", ())]
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
    yield from _twice(pod, "variables", [one["name"] for one in container.get("env", ())])
    places = [one["mountPath"] for one in container.get("volumeMounts", ())]
    yield from _twice(pod, "mounts", places)
    for variable in container.get("env", ()):
        if "value" in variable and not isinstance(variable["value"], str):
            yield f"{pod.name}: {variable['name']} is no text"
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        if secret and secret["name"] not in external:
            yield f"{pod.name}: {variable['name']} from {secret['name']}"
    ports = {one["name"] for one in container.get("ports", ())}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe in container and container[probe]["httpGet"]["port"] not in ports:
            yield f"{pod.name}: {probe} asks a port that is not there"
