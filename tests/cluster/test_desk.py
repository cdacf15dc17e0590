"""The chart's desk: from an uncertain label in Kafka to a correction there.

The desk runs from its image (CLERK_TEST_DESK_IMAGE), with SQLite on a claim. The release has no
workers: the test writes their results.
"""

from __future__ import annotations

import http.cookiejar
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.render import ROOT, merge
from tests.cluster.conftest import missing
from tests.cluster.kubectl import Cluster, Release, wait_until
from tests.cluster.load import Names
from tests.cluster.values import LABEL, PULL_POLICY, demo_values, volume
from tests.support.desk_browser import field
from tests.support.desk_messages import publish_results
from tests.support.topics import create_topics, read_all, read_corrections
from worker.contract.taxonomy import Taxonomy

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

IMAGE = os.environ.get("CLERK_TEST_DESK_IMAGE", "")
TAXONOMY = ROOT / "config" / "taxonomy.toml"
DEPLOYMENT = "deployment/people-filing-clerk-desk"
READY = "--timeout=300s"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def names() -> Names:
    return Names.fresh("people")


@pytest.fixture(scope="module")
def topics(kafka: str, names: Names) -> dict[str, str]:
    """All topics except the corrections', which the desk creates."""
    made = {"in": names.inputs, "labels": names.outputs, "review": names.review}
    create_topics(kafka, made.values())
    return {**made, "corrections": f"{names.group}.corrections"}


@pytest.fixture(scope="module")
def values(kafka: str, names: Names, topics: dict[str, str]) -> dict[str, Any]:
    if not IMAGE:
        missing("CLERK_TEST_DESK_IMAGE must name the desk's image on the nodes")
    repository, _, tag = IMAGE.rpartition(":")
    desk = {
        "enabled": True,
        "image": {"repository": repository, "tag": tag, "pullPolicy": PULL_POLICY},
        "taxonomy": TAXONOMY.read_text(encoding="utf-8"),
        "config": {
            "kafka": {
                "corrections_topic": topics["corrections"],
                "create_topics": True,
            },
            "sign_in": {"method": "local"},
            "web": {"secure_cookies": False},  # no Ingress with TLS in front of it
            "review": {"publish_delay_s": 0, "double_share": 0},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
    }
    return merge(demo_values(kafka, names, 1), {"replicaCount": 0, "desk": desk})


@pytest.fixture(scope="module")
def release(
    cluster: Cluster, values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Release]:
    folder = tmp_path_factory.mktemp("desk") / "volume"
    claim = "people-filing-clerk-desk"
    if not cluster.exists("storageclass"):
        cluster.apply([volume(folder, cluster.namespace, claim, "")])
    made = Release(cluster, "people", values)
    made.install("--wait", "--timeout", "5m")
    yield made
    cluster.helm("uninstall", "people", "--ignore-not-found", "--wait", "--timeout", "3m")
    cluster.kubectl("delete", "pvc", claim, "--ignore-not-found")
    cluster.kubectl("delete", "pv", "-l", LABEL, "--wait=false")


class Visitor:
    """A browser at the desk, without scripts."""

    def __init__(self, address: str) -> None:
        self.address = address
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)

    def get(self, path: str) -> str:
        return self._open(path, None)

    def post(self, path: str, form: dict[str, str]) -> str:
        """Send a form; return the resulting page."""
        return self._open(path, urllib.parse.urlencode(form).encode())

    def sign_in(self, name: str, password: str) -> None:
        page = self.get("/sign-in")
        form = {"csrf": field(page, "csrf"), "name": name, "password": password, "next": "/"}
        assert 'name="password"' not in self.post("/sign-in", form)

    def decide(self, page: str, label: str) -> str:
        """Press a label's button on the page of a message."""
        names = (
            "csrf",
            "item",
            "request",
            *re.findall(r'name="(reason|origin|order)" value', page),
        )
        form = {name: field(page, name) for name in names}
        return self.post("/review", {**form, "action": f"label:{label}"})

    def _open(self, path: str, sent: bytes | None) -> str:
        with self._opener.open(f"{self.address}{path}", sent, timeout=30) as answer:
            page: str = answer.read().decode()
        return page


def add_person(cluster: Cluster, name: str) -> None:
    """As in docs/desk.md: in the pod, with the password from a pipe."""
    command = ("clerk-desk", "people", "add", name, "--role", "owner",
               "-c", "/etc/filing-clerk/desk.toml")  # fmt: skip
    cluster.kubectl("exec", "-i", DEPLOYMENT, "-c", "desk", "--", *command, given=PASSWORD)


@pytest.mark.usefixtures("release")
def test_an_uncertain_label_becomes_a_correction(
    cluster: Cluster, kafka: str, topics: dict[str, str]
) -> None:
    """A reviewer signs in and decides, and a router can read the correction. A restarted desk
    keeps the decision."""
    cluster.kubectl("rollout", "status", DEPLOYMENT, READY)
    add_person(cluster, "ada")
    taxonomy = Taxonomy.from_toml(TAXONOMY)
    machine, other = taxonomy.names[:2]
    publish_results(kafka, topics, taxonomy, [
        ("Where is my parcel?", {"label": machine, "reasons": ["low_confidence"]}),
        ("I want my money back", {"label": other}),
    ])  # fmt: skip
    with cluster.forwarded(DEPLOYMENT, 8090) as address:
        ada = Visitor(address)
        assert 'name="password"' in ada.get("/")
        ada.sign_in("ada", PASSWORD)
        wait_until("a message waits", lambda: 'value="next"' in ada.get("/review"), 60)
        page = ada.get("/review")
        ada.decide(ada.post("/review", {"csrf": field(page, "csrf"), "action": "next"}), other)
        wait_until("a correction in Kafka", lambda: read_all(kafka, topics["corrections"]), 60)
    (correction,) = read_corrections(kafka, topics["corrections"])
    assert (correction.machine.label, correction.label) == (machine, other)
    assert correction.message_id == "T-0"
    _starts_anew(cluster)


def _starts_anew(cluster: Cluster) -> None:
    cluster.kubectl("rollout", "restart", DEPLOYMENT)
    cluster.kubectl("rollout", "status", DEPLOYMENT, READY)
    with cluster.forwarded(DEPLOYMENT, 8090) as address:
        ada = Visitor(address)
        ada.sign_in("ada", PASSWORD)
        assert re.search(r"<dt>decided</dt><dd><strong>1</strong>", ada.get("/my-day"))
    with cluster.forwarded(DEPLOYMENT, 8091) as address:
        page = Visitor(address).get("/metrics")
    assert "clerk_desk_database_up 1.0" in page
    assert "clerk_desk_outbox_corrections 0.0" in page
