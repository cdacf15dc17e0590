"""Several releases in one cluster share nothing by mistake."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from tests.chart.render import Document, find, merge, pods, render_minimal
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


@pytest.mark.parametrize("name", ["", "elsewhere"])
def test_all_objects_are_in_one_namespace(name: str) -> None:
    documents = render_minimal(merge(ALL, {"namespaceOverride": name}), namespace="support")
    expected = name or "support"
    assert {document["metadata"]["namespace"] for document in documents} == {expected}
    rules = find(documents, "PrometheusRule")["spec"]["groups"]
    assert all(
        rule["labels"]["namespace"] == expected for group in rules for rule in group["rules"]
    )
    (test,) = [pod for pod in pods(documents) if pod.owner["kind"] == "Pod"]
    assert f".{expected}.svc:" in test.spec["containers"][0]["args"][2]


def test_every_pod_selects_the_images_architecture() -> None:
    parts = {"rollback": {"enabled": True}, "nodeSelector": {"gpu": "l4"}}
    for arch, expected in (("amd64", {"kubernetes.io/arch": "amd64"}), ("", {})):
        for pod in pods(render_minimal(merge(merge(ALL, parts), {"arch": arch}))):
            own = {"gpu": "l4"} if pod.owner["metadata"]["name"] == "clerk-filing-clerk" else {}
            assert pod.spec.get("nodeSelector", {}) == expected | own, pod.name
