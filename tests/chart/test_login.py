"""Token logins in every pod that talks to Kafka, and the objects of a first install."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from desk.settings import load_settings as load_desk
from tests.chart.references import broken
from tests.chart.render import Document, PodSpec, find, merge, pods, render_minimal
from tests.chart.test_desk import DESK
from worker.settings import load_settings as load_worker

# librdkafka's own login with an OpenID provider; the client's secret is in a Secret.
OIDC: dict[str, Any] = {
    "config": {
        "kafka": {
            "security_protocol": "sasl_ssl",
            "sasl_mechanism": "OAUTHBEARER",
            "client": {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": "clerk",
                "sasl.oauthbearer.token.endpoint.url": "https://id.example:8443/token",
                "sasl.oauthbearer.scope": "kafka",
                "sasl.oauthbearer.metadata.authentication.type": "none",
                "sasl.oauthbearer.assertion.private.key.file": "/keys/client.pem",
            },
        }
    },
    "secretEnv": {"CLERK_KAFKA__CLIENT": {"name": "kafka-oidc", "key": "client.json"}},
}
# MSK's login: a user's function that asks for a token as the pod's service account.
IAM: dict[str, Any] = {
    "config": {
        "kafka": {
            "security_protocol": "sasl_ssl",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_token_callback": "msk_token:token",
        }
    },
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/clerk"}},
    "env": {"PYTHONPATH": "/opt/token", "AWS_REGION": "eu-central-1"},
    "extraVolumes": [{"name": "token", "configMap": {"name": "msk-token"}}],
    "extraVolumeMounts": [{"name": "token", "mountPath": "/opt/token", "readOnly": True}],
}
TALKERS = {"worker", "topics", "desk"}
BROUGHT = frozenset({"models", "adapters", "kafka-oidc", "msk-token"})


def rendered(*changes: Mapping[str, Any]) -> list[Document]:
    """Workers, the desk and the topics job."""
    values: dict[str, Any] = merge(DESK, {"topics": {"create": True}})
    for change in changes:
        values = merge(values, change)
    return render_minimal(values)


def talkers(documents: list[Document]) -> dict[str, PodSpec]:
    """The pods that connect to Kafka, by component."""
    found = {pod.labels["app.kubernetes.io/component"]: pod for pod in pods(documents)}
    return {part: found[part] for part in TALKERS}


def settings_files(documents: list[Document], folder: Path) -> tuple[Path, ...]:
    files = []
    for ending, name in (
        ("filing-clerk", "worker.toml"), ("-topics", "worker.toml"), ("-desk", "desk.toml"),
    ):  # fmt: skip
        files.append(folder / f"{ending}.toml")
        text = find(documents, "ConfigMap", ending)["data"][name]
        files[-1].write_text(text, encoding="utf-8")
    return tuple(files)


def test_every_program_gets_the_clients_secret() -> None:
    """From one Secret, under the name that each program reads; the desk may have its own."""

    def secrets(documents: list[Document], part: str) -> dict[str, str]:
        return {
            each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
            for container in talkers(documents)[part].containers
            for each in container["env"]
            if each["name"].endswith("KAFKA__CLIENT")
        }

    documents = rendered(OIDC)
    assert secrets(documents, "topics") == {"CLERK_KAFKA__CLIENT": "kafka-oidc"}
    assert secrets(documents, "desk") == {"CLERK_DESK_KAFKA__CLIENT": "kafka-oidc"}
    own = {"CLERK_DESK_KAFKA__CLIENT": {"name": "desk-oidc", "key": "client.json"}}
    documents = rendered(OIDC, {"desk": {"secretEnv": own}})
    assert secrets(documents, "desk") == {"CLERK_DESK_KAFKA__CLIENT": "desk-oidc"}


@pytest.mark.parametrize("values", [OIDC, IAM], ids=["oidc", "iam"])
def test_every_program_reads_the_token_logins_settings(
    values: dict[str, Any], tmp_path: Path
) -> None:
    documents = rendered(values)
    worker, topics, desk = settings_files(documents, tmp_path)
    for file, load in ((worker, load_worker), (topics, load_worker), (desk, load_desk)):
        found = load(file).settings.kafka.model_dump()
        assert values["config"]["kafka"].items() <= found.items(), file
    assert list(broken(documents, BROUGHT)) == []


def test_pods_with_a_token_login_have_the_account_variables_and_module() -> None:
    """All containers of worker, topics job and desk (with its migration), and no other pod."""
    documents = rendered(IAM, {"rollback": {"enabled": True}})
    accounts = {
        document["metadata"]["name"]: document["metadata"].get("annotations", {})
        for document in documents
        if document["kind"] == "ServiceAccount"
    }
    for part, pod in talkers(documents).items():
        account = accounts[pod.spec["serviceAccountName"]]
        assert IAM["serviceAccount"]["annotations"].items() <= account.items(), part
        for container in pod.containers:
            variables = {each["name"]: each.get("value") for each in container["env"]}
            assert IAM["env"].items() <= variables.items(), part
            assert IAM["extraVolumeMounts"][0] in container["volumeMounts"], part
    others = [
        pod for pod in pods(documents) if pod.labels["app.kubernetes.io/component"] not in TALKERS
    ]
    assert others
    for pod in others:
        assert "msk-token" not in str(pod.spec), pod.name


def test_the_token_endpoint_is_reachable() -> None:
    """A policy that lets only Kafka through would leave every pod without a token."""
    url = {"sasl.oauthbearer.token.endpoint.url": "https://id.example/token"}
    documents = rendered(OIDC, {"config": {"kafka": {"client": url}}})
    for part in TALKERS:
        assert 443 in egress_ports(policy_of(documents, talkers(documents)[part])), part


def policy_of(documents: list[Document], pod: PodSpec) -> Document:
    (found,) = [
        document
        for document in documents
        if document["kind"] == "NetworkPolicy" and _selects(document, pod)
    ]
    return found


def _selects(policy: Document, pod: PodSpec) -> bool:
    selector = policy["spec"]["podSelector"]
    return bool(selector["matchLabels"].items() <= pod.labels.items()) and all(
        pod.labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", ())
    )


def egress_ports(policy: Document) -> set[int]:
    return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}


def weight(document: Document) -> int:
    return int(document["metadata"]["annotations"]["helm.sh/hook-weight"])


def test_a_first_install_creates_all_that_the_topics_job_needs() -> None:
    """Only hooks of a lower weight exist before the job: its settings, its account, and its own
    network policy for a namespace that denies all traffic."""
    documents = rendered(OIDC, {"networkPolicy": {"extraEgress": [{"ports": [{"port": 3128}]}]}})
    hooks = [
        document
        for document in documents
        if "pre-install" in document["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    ]
    job = find(hooks, "Job")
    before = [document for document in hooks if weight(document) < weight(job)]
    assert list(broken([*before, job], BROUGHT)) == []
    pod = talkers(documents)["topics"]
    assert pod.spec["serviceAccountName"] in {
        each["metadata"]["name"] for each in before if each["kind"] == "ServiceAccount"
    }
    assert egress_ports(policy_of(before, pod)) == {53, 9092, 8443, 3128}
    assert policy_of(documents, pod) is not None  # and it is the only one for this pod
