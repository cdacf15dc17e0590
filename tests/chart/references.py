"""What must agree between documents: names that point somewhere, selectors that match, ports that are there."""

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
    name = f"{one['kind']} {one['metadata']['name']}"
    if one["kind"] in ("ScaledObject", "HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        if target["apiVersion"] != "apps/v1" or (target["kind"], target["name"]) not in there:
            yield f"{name} scales {target}"
    if one["kind"] == "ScaledObject":
        for trigger in one["spec"]["triggers"]:
            ref = trigger.get("authenticationRef", {}).get("name")
            if ref and ("TriggerAuthentication", ref) not in there and ref not in external:
                yield f"{name} logs in by {ref}"
    if one["kind"] == "TriggerAuthentication":
        for part in ("secretTargetRef", "configMapTargetRef"):
            for ref in one["spec"].get(part, ()):
                if ref["name"] not in external:
                    yield f"{name} takes {ref}"
    if one["kind"] == "ServiceMonitor":
        wanted = one["spec"]["selector"]["matchLabels"]
        if (
            "Service",
            one["metadata"]["name"],
        ) not in there or "app.kubernetes.io/name" not in wanted:
            yield f"{name} finds no Service"


def _pod(pod: PodSpec, there: set[tuple[str, str]], external: frozenset[str]) -> Iterator[str]:
    account = pod.spec.get("serviceAccountName", "default")
    if (
        account != "default"
        and ("ServiceAccount", account) not in there
        and account not in external
    ):
        yield f"{pod.name}: service account {account}"
    volumes = {}
    for volume in pod.spec.get("volumes", ()):
        if volume["name"] in volumes:
            yield f"{pod.name}: two volumes {volume['name']}"
        volumes[volume["name"]] = volume
        for kind, name in _objects(volume):
            if (kind, name) not in there and name not in external:
                yield f"{pod.name}: volume {volume['name']}: no {kind} {name}"
    names = [one["name"] for one in pod.containers]
    if len(set(names)) != len(names):
        yield f"{pod.name}: two containers of one name"
    mounted = set()
    for container in pod.containers:
        places = [one["mountPath"] for one in container.get("volumeMounts", ())]
        if len(set(places)) != len(places):
            yield f"{pod.name}: two volumes in one place: {places}"
        for mount in container.get("volumeMounts", ()):
            mounted.add(mount["name"])
            if mount["name"] not in volumes:
                yield f"{pod.name}: no volume {mount['name']}"
        yield from _container(pod, container, external)
    if unused := volumes.keys() - mounted:
        yield f"{pod.name}: nothing mounts {unused}"


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
    names = [one["name"] for one in container.get("env", ())]
    if len(set(names)) != len(names):
        yield f"{pod.name}: a variable stands twice: {names}"
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
