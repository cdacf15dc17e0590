"""The checks themselves see what they are for: a chart broken on purpose does not pass them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.chart.references import broken
from tests.chart.render import Document, find, render_minimal
from tests.chart.restricted import violations

BROUGHT = frozenset({"models", "adapters"})


@pytest.fixture(scope="module")
def sound() -> list[Document]:
    """What is broken below."""
    return render_minimal({"autoscaling": {"kind": "keda"}, "metrics": {"monitor": "service"}})


def put(document: Document, path: str, value: Any) -> None:
    """Set a value by its dotted path."""
    *steps, last = path.split(".")
    at: Any = document
    for step in steps:
        at = at[int(step)] if isinstance(at, list) else at[step]
    at[int(last) if isinstance(at, list) else last] = value


POD = "spec.template.spec"
WORKER = f"{POD}.containers.0"


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("Deployment", "metadata.name", "UPPER", "not a name"),
        ("Deployment", "metadata.labels.x", "a b", "label"),
        ("Deployment", f"{POD}.serviceAccountName", "nobody", "service account"),
        ("Deployment", f"{POD}.volumes.0.configMap.name", "x", "no ConfigMap x"),
        ("Deployment", f"{POD}.volumes.1.persistentVolumeClaim.claimName", "x", "no Persistent"),
        ("Deployment", f"{WORKER}.volumeMounts.0.name", "x", "mounted without a volume"),
        ("Deployment", f"{WORKER}.volumeMounts.0.mountPath", "/tmp", "two mounts"),
        ("Deployment", f"{WORKER}.env.1.name", "CLERK_KAFKA__INSTANCE_ID", "two variables"),
        ("Deployment", f"{WORKER}.env.1.value", 1, "is no text"),
        ("Deployment", f"{WORKER}.livenessProbe.httpGet.port", "x", "asks a port"),
        ("Deployment", "spec.selector.matchLabels.x", "y", "selects"),
        ("Service", "spec.selector.x", "y", "selects"),
        ("PodDisruptionBudget", "spec.selector.matchLabels.x", "y", "selects"),
        ("NetworkPolicy", "spec.podSelector.matchLabels.x", "y", "selects"),
        ("ScaledObject", "spec.scaleTargetRef.name", "x", "no Deployment x"),
        ("ScaledObject", "spec.triggers.0.authenticationRef", {"name": "x"}, "no TriggerAuth"),
        ("Service", "metadata.name", "x", "no Service"),
    ],
)
def test_a_broken_reference_is_seen(
    sound: list[Document], kind: str, path: str, value: Any, said: str
) -> None:
    """Each kind of reference, broken by itself."""
    assert list(broken(sound, BROUGHT)) == []
    documents = copy.deepcopy(sound)
    put(next(document for document in documents if document["kind"] == kind), path, value)
    assert said in "\n".join(broken(documents, BROUGHT))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hostNetwork", True),
        ("securityContext.sysctls", [{"name": "a", "value": "b"}]),
        ("volumes.0", {"name": "x", "hostPath": {"path": "/"}}),
        ("containers.0.securityContext.privileged", True),
        ("containers.0.securityContext.allowPrivilegeEscalation", True),
        ("containers.0.securityContext.capabilities", {}),
        ("containers.0.securityContext.capabilities.add", ["SYS_ADMIN"]),
        ("containers.0.securityContext.runAsNonRoot", False),
        ("containers.0.securityContext.runAsUser", 0),
        ("containers.0.securityContext.seccompProfile", {"type": "Unconfined"}),
        ("containers.0.securityContext.procMount", "Unmasked"),
        ("containers.0.ports.0.hostPort", 80),
        ("containers.0.livenessProbe.httpGet.host", "elsewhere"),
    ],
)
def test_a_pod_that_is_not_restricted_is_seen(sound: list[Document], path: str, value: Any) -> None:
    """Each control of the level, broken by itself."""
    spec = copy.deepcopy(find(sound, "Deployment")["spec"]["template"]["spec"])
    assert list(violations(spec)) == []
    put(spec, path, value)
    assert len(list(violations(spec))) == 1
