"""Several releases in one cluster share nothing by mistake."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from tests.chart.references import broken
from tests.chart.render import CHART, Document, find, merge, pods, render_minimal
from tests.chart.test_desk import DESK

ALL: dict[str, Any] = merge(
    DESK,
    {
        "metrics": {"monitor": "pod", "rules": {"enabled": True}, "dashboard": {"enabled": True}},
        "autoscaling": {"kind": "keda"},
        "topics": {"create": True},
        "config": {"adapters": {"shadow": "/adapters/next"}},
    },
)


def settings(documents: list[Document], ending: str, name: str) -> dict[str, Any]:
    return tomllib.loads(find(documents, "ConfigMap", ending)["data"][name])


def names_of(release: str, namespace: str) -> set[str]:
    """Names that no other release may have: the group, each output topic, the dashboard."""
    documents = render_minimal(ALL, release=release, namespace=namespace)
    worker = settings(documents, "filing-clerk", "worker.toml")
    desk = settings(documents, "-desk", "desk.toml")
    (text,) = find(documents, "ConfigMap", "-dashboard")["data"].values()
    dashboard = json.loads(text)
    kafka = worker["kafka"]
    written = {kafka[f"{name}_topic"] for name in ("output", "review", "dead_letter")}
    (trigger,) = find(documents, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == kafka["group_id"]
    assert (desk["kafka"]["output_topic"], desk["kafka"]["review_topic"]) == (
        kafka["output_topic"], kafka["review_topic"],
    )  # fmt: skip
    assert len(dashboard["uid"]) <= 40  # Grafana's bound
    return written | {
        kafka["group_id"], worker["adapters"]["shadow_topic"], desk["kafka"]["corrections_topic"],
        dashboard["uid"], dashboard["title"],
    }  # fmt: skip


def test_two_releases_share_no_group_topic_or_dashboard() -> None:
    """Two names in a namespace, or one name in two namespaces, on one Kafka."""
    one, other, elsewhere = (
        names_of(*each) for each in (("a", "x"), ("b", "x"), ("a", "y"))
    )  # fmt: skip
    assert len(one) == 8
    assert not one & other
    assert not one & elsewhere
    assert one == names_of("a", "x")


def test_given_names_are_kept() -> None:
    """The rest follows the output topic; null counts as left out, empty has its meaning."""
    given = {"config": {"kafka": {"group_id": "g", "output_topic": "labels", "review_topic": ""}}}
    kafka = settings(render_minimal(given), "filing-clerk", "worker.toml")["kafka"]
    assert (kafka["group_id"], kafka["output_topic"], kafka["review_topic"]) == ("g", "labels", "")
    assert kafka["dead_letter_topic"] == "labels.dead"
    null = {"config": {"kafka": {"group_id": None, "output_topic": None, "input_topics": None}}}
    kafka = settings(render_minimal(null), "filing-clerk", "worker.toml")["kafka"]
    assert kafka["group_id"] == "support.clerk-filing-clerk"
    assert kafka["output_topic"] == "support.clerk-filing-clerk.labels"
    assert kafka["review_topic"] == "support.clerk-filing-clerk.labels.review"


def test_the_dashboard_shows_its_release_first() -> None:
    documents = render_minimal(ALL)
    (text,) = find(documents, "ConfigMap", "-dashboard")["data"].values()
    made = json.loads(text)
    file = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    chosen = {each["name"]: each["current"] for each in made["templating"]["list"]}
    assert chosen["namespace"]["value"] == ["support"]
    assert chosen["job"]["value"] == [
        "support/clerk-filing-clerk", "support/clerk-filing-clerk-desk",
    ]  # fmt: skip
    for each in (made, file):
        for key in ("uid", "title"):
            del each[key]
        for variable in each["templating"]["list"]:
            if variable["name"] in {"namespace", "job"}:
                del variable["current"]
    assert made == file


@pytest.mark.parametrize("name", ["", "elsewhere"])
def test_all_objects_are_in_one_namespace(name: str) -> None:
    """The release's, or the one that a parent chart names."""
    documents = render_minimal(merge(ALL, {"namespaceOverride": name}), namespace="support")
    expected = name or "support"
    assert {document["metadata"]["namespace"] for document in documents} == {expected}
    rules = find(documents, "PrometheusRule")["spec"]["groups"]
    assert all(
        rule["labels"]["namespace"] == expected for group in rules for rule in group["rules"]
    )
    (test,) = [pod for pod in pods(documents) if pod.owner["kind"] == "Pod"]
    assert f".{expected}.svc:" in test.spec["containers"][0]["args"][1]


def test_every_pod_selects_the_images_architecture() -> None:
    """Images of your own go anywhere."""
    parts = {"rollback": {"enabled": True}, "nodeSelector": {"gpu": "l4"}}
    for arch, expected in (("amd64", {"kubernetes.io/arch": "amd64"}), ("", {})):
        for pod in pods(render_minimal(merge(merge(ALL, parts), {"arch": arch}))):
            own = {"gpu": "l4"} if pod.owner["metadata"]["name"] == "clerk-filing-clerk" else {}
            assert pod.spec.get("nodeSelector", {}) == expected | own, pod.name


def test_monitors_relabel() -> None:
    rules = [{"action": "labeldrop", "regex": "x"}]
    values = {"metrics": {"relabelings": rules, "metricRelabelings": [{"action": "keep"}]}}
    documents = render_minimal(merge(ALL, values))
    monitors = [each for each in documents if each["kind"] == "PodMonitor"]
    assert len(monitors) == 2
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["relabelings"] == rules
        assert endpoint["metricRelabelings"] == [{"action": "keep"}]


def test_extra_containers_run_next_to_the_worker() -> None:
    """The pod's first container stays the worker."""
    shipper = {"name": "shipper", "image": "registry.example/shipper:1"}
    documents = render_minimal({"extraContainers": [shipper]})
    containers = find(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["worker", "shipper"]


def test_the_desk_has_a_gateway_route() -> None:
    gateway = {"name": "public", "namespace": "gateways"}
    route = {"enabled": True, "parentRefs": [gateway], "hostnames": ["desk.example.com"]}
    documents = render_minimal(merge(DESK, {"desk": {"httpRoute": route}}))
    spec = find(documents, "HTTPRoute", "-desk")["spec"]
    assert spec["parentRefs"] == [gateway]
    assert spec["hostnames"] == ["desk.example.com"]
    (rule,) = spec["rules"]
    (backend,) = rule["backendRefs"]
    service = find(documents, "Service", "-desk")
    assert backend["name"] == service["metadata"]["name"]
    (http,) = [port for port in service["spec"]["ports"] if port["name"] == "http"]
    assert backend["port"] == http["port"]
    desk = settings(documents, "-desk", "desk.toml")
    assert desk["web"]["hostnames"] == ["desk.example.com"]
    assert list(broken(documents, frozenset({"models", "adapters"}))) == []
