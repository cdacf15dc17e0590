"""All allowed values and all release names render, completely and safely."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chart.references import SECURED, broken
from tests.chart.render import MINIMAL, find, merge, pods, render, worker_container
from tests.chart.test_examples import BROUGHT

# As Helm allows them; YAML reads some as something other than text.
release_names = st.one_of(
    st.sampled_from(["y", "n", "on", "off", "no", "null", "true", "123", "0x1f", "1e3", "1.5",
                     "a" * 53, "9" * 53, "filing-clerk", "my-filing-clerk-2", "a.b",
                     "e-" * 26 + "e"]),
    st.from_regex(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?", fullmatch=True),
)  # fmt: skip
odd = st.sampled_from(["y", "on", "123", "1e3", "null", "~", "a: b", "{{ .Release.Name }}", "#x",
                       '"', "'", "a\nb", "", "\\", "*", "&a", "%", "@", "🦊"])  # fmt: skip
label = st.sampled_from(["y", "on", "123", "1e3", "null", "0.5", "true", "x_y"])
volume = st.sampled_from([
    {"persistentVolumeClaim": {"claimName": "models"}}, {"emptyDir": {}}, {"csi": {"driver": "d"}},
    {"ephemeral": {"volumeClaimTemplate": {}}}, {},
])  # fmt: skip


jobs = st.sampled_from([["clerk"], ["a/b", "a/b-desk"], ["A.b_c:d"]])

variables = st.dictionaries(st.sampled_from(["OTEL_A", "Y", "HTTP_PROXY"]), odd, max_size=3)
secrets = st.fixed_dictionaries({"name": st.just("model-store"), "key": label})


@st.composite
def any_values(draw: st.DrawFn) -> dict[str, Any]:
    """Valid values, however unusual."""
    below = {key: value for key, value in MINIMAL.items() if key != "storage"}
    storage = {}
    for name in ("models", "adapters"):
        source = draw(volume)
        storage[name] = {"volume": source, "claim": {"create": not source}}
    cache = {"cache": {"volume": draw(volume)}}
    values = _workers(draw) | _cluster(draw) | _jobs(draw)
    return merge(merge(below, values), {"storage": storage | cache})


def _workers(draw: st.DrawFn) -> dict[str, Any]:
    images: list[dict[str, str]] = [
        {"tag": "1.10"}, {"tag": "1e3"}, {"digest": "sha256:" + "0" * 64}, {},
    ]  # fmt: skip
    return {
        "replicaCount": draw(st.integers(0, 12)),
        "image": draw(st.sampled_from(images)),
        "config": {
            "kafka": {
                "bootstrap_servers": draw(st.sampled_from(["kafka:9092", "[fd00::1]:9092,k:9093"])),
                "group_id": draw(label),
                "topic_partitions": draw(st.sampled_from([None, 12])),
            },
            "http": {"port": draw(st.integers(1024, 65535))},
        },
        "env": draw(variables),
        "secretEnv": draw(
            st.dictionaries(st.sampled_from(["HF_TOKEN", "A_B"]), secrets, max_size=2)
        ),
        "gpu": {"count": draw(st.integers(0, 1))},
        "podLabels": draw(st.dictionaries(st.sampled_from(["team", "a/b"]), label, max_size=2)),
        "podAnnotations": draw(st.dictionaries(st.sampled_from(["note", "a/b"]), odd, max_size=2)),
        "nodeSelector": draw(st.dictionaries(st.sampled_from(["gpu", "a/b"]), label, max_size=2)),
        "terminationGracePeriodSeconds": draw(st.sampled_from([None, 60, 600])),
        "strategy": {"maxSurge": draw(st.sampled_from([0, 1, "25%"]))},
    }


def _cluster(draw: st.DrawFn) -> dict[str, Any]:
    maximum = draw(st.integers(1, 12))
    return {
        "podDisruptionBudget": {
            "enabled": draw(st.booleans()),
            "maxUnavailable": draw(st.sampled_from([1, "50%"])),
        },
        "serviceAccount": {"create": draw(st.booleans())},
        "autoscaling": {
            "kind": draw(st.sampled_from(["none", "keda", "hpa"])),
            "minReplicas": draw(st.integers(1, maximum)),
            "maxReplicas": maximum,
            "hpa": {"metrics": [{"type": "Resource"}]},
        },
        "metrics": {
            "monitor": draw(st.sampled_from(["none", "pod", "service"])),
            "rules": {"enabled": draw(st.booleans()), "jobs": draw(jobs)},
            "dashboard": {"enabled": draw(st.booleans())},
        },
        "networkPolicy": {"enabled": draw(st.booleans())},
    }


def _jobs(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "topics": {"create": draw(st.booleans())},
        "download": {
            "enabled": draw(st.booleans()),
            "image": "registry.example/s3:1",
            "env": draw(variables),
        },
        "trainer": {
            "enabled": draw(st.booleans()),
            "image": {"repository": "registry.example/t"},
            "recipe": draw(odd.filter(bool)),
            "schedule": draw(st.sampled_from(["", "0 2 * * 6"])),
            "data": {"persistentVolumeClaim": {"claimName": "support-dataset"}},
            "steps": draw(st.lists(st.lists(odd, min_size=1, max_size=3), min_size=1, max_size=3)),
            "propose": {
                "enabled": draw(st.booleans()),
                "decisions": {"persistentVolumeClaim": {"claimName": "support-dataset"}},
                "proposals": {"persistentVolumeClaim": {"claimName": "support-dataset"}},
            },
        },
        "tests": {"targets": draw(st.lists(odd, max_size=2))},
    }


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=any_values(), release=release_names)
def test_all_values_render_completely_and_safely(values: dict[str, Any], release: str) -> None:
    """Valid YAML, intact references, legal names and labels, text kept as text, restricted pods."""
    documents = render(values, release=release)
    assert list(broken(documents, BROUGHT | {"support-dataset"})) == []
    for pod in pods(documents):
        assert all(SECURED.items() <= each["securityContext"].items() for each in pod.containers)
    for document in documents:
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == release
    deployment = find(documents, "Deployment")
    assert deployment["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "filing-clerk", "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": "worker",
    }  # fmt: skip
    variables = {
        variable["name"]: variable.get("value") for variable in worker_container(documents)["env"]
    }
    assert values["env"].items() <= variables.items()
    metadata = deployment["spec"]["template"]["metadata"]
    assert values["podLabels"].items() <= metadata["labels"].items()
    assert values["podAnnotations"].items() <= metadata["annotations"].items()
    (test,) = [document for document in documents if document["kind"] == "Pod"]
    if values["tests"]["targets"]:
        assert test["spec"]["containers"][0]["args"][2:] == values["tests"]["targets"]
    if values["trainer"]["enabled"]:
        cron = find(documents, "CronJob", "-trainer")
        spec = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        steps = [*spec.get("initContainers", ()), *spec["containers"]]
        assert [step["args"] for step in steps] == values["trainer"]["steps"]
