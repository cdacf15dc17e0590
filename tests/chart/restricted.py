"""The Pod Security Standard "restricted", as far as a manifest can break it.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(spec: Mapping[str, Any]) -> Iterator[str]:
    """Give everything in a pod's spec that the level forbids."""
    pod = spec.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for key in ("sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"):
        if pod.get(key):
            yield f"securityContext.{key}"
    for volume in spec.get("volumes", ()):
        if kinds := volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']}: {', '.join(kinds)}"
    groups = ("initContainers", "containers", "ephemeralContainers")
    for container in (container for group in groups for container in spec.get(group, ())):
        for what in _container(container, pod):
            yield f"container {container['name']}: {what}"


def _container(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    seccomp = own.get("seccompProfile", pod.get("seccompProfile", {}))
    probes = [container.get(f"{kind}Probe", {}) for kind in ("startup", "liveness", "readiness")]
    checks = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "capabilities are not dropped": "ALL" in capabilities.get("drop", ()),
        "capabilities are added": set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
        "runAsNonRoot": own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True,
        "runAsUser 0": 0 not in (own.get("runAsUser"), pod.get("runAsUser")),
        "seccompProfile": seccomp.get("type") in SECCOMP,
        "procMount": own.get("procMount", "Default") == "Default",
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", ())),
        "a probe names a host": not any("host" in probe.get("httpGet", {}) for probe in probes),
    }
    yield from (what for what, kept in checks.items() if not kept)
