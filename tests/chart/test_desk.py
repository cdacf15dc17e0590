"""The desk as part of the release: what it reads, who reaches it, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from desk.settings import load_settings
from tests.chart.render import (
    EXAMPLES,
    MINIMAL,
    Document,
    Refused,
    find,
    merge,
    render,
    render_minimal,
)

TAXONOMY = (Path(__file__).parents[2] / "config" / "taxonomy.toml").read_text(encoding="utf-8")
DESK: dict[str, Any] = {
    "desk": {
        "enabled": True,
        "image": {"repository": "registry.example/clerk/desk"},
        "taxonomy": TAXONOMY,
        "config": {"sign_in": {"method": "local"}},
    }
}
SASL = {
    "config": {"kafka": {"security_protocol": "sasl_ssl", "sasl_mechanism": "SCRAM-SHA-512"}},
    "auth": {"sasl": {"secret": "kafka-login"}, "tls": {"caConfigMap": "kafka-ca"}},
}


def rendered(*changes: dict[str, Any]) -> list[Document]:
    values = DESK
    for change in changes:
        values = merge(values, change)
    return render_minimal(values)


def desk(**changes: Any) -> dict[str, Any]:
    return {"desk": changes}


def pod_of(documents: list[Document]) -> Any:
    return find(documents, "Deployment", "-desk")["spec"]["template"]["spec"]


def variables(documents: list[Document]) -> dict[str, Any]:
    """The container's environment: values, or references to Secrets."""
    return {
        given["name"]: given.get("value") or given["valueFrom"]["secretKeyRef"]
        for given in pod_of(documents)["containers"][0]["env"]
    }


def egress_ports(documents: list[Document]) -> set[int]:
    """Ports that the network policy lets out, without DNS."""
    rules = find(documents, "NetworkPolicy", "-desk")["spec"]["egress"]
    return {port["port"] for rule in rules for port in rule["ports"]} - {53}


def test_without_a_desk_nothing_of_it_is_rendered() -> None:
    for document in render(MINIMAL):
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/component"] != "desk", document["kind"]


def test_the_desk_reads_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers' Kafka, records and certificates, unless the desk has its own; the Ingress's host
    name."""
    workers = {"records": {"text_fields": ["subject", "body"]}, "kafka": {"output_topic": "out"}}
    documents = rendered(
        SASL,
        {"config": workers},
        desk(
            config={"kafka": {"review_topic": "own"}, "review": {"claim_s": 60}},
            ingress={"enabled": True, "host": "desk.example.com"},
        ),
    )
    file = tmp_path / "desk.toml"
    file.write_text(find(documents, "ConfigMap", "-desk")["data"]["desk.toml"], encoding="utf-8")
    for name, value in variables(documents).items():
        monkeypatch.setenv(name, value if isinstance(value, str) else "secret")
    found = load_settings(file).settings
    assert found.kafka.bootstrap_servers == "kafka:9092"
    assert (found.kafka.output_topic, found.kafka.review_topic) == ("out", "own")
    assert found.kafka.security_protocol == "sasl_ssl"
    assert found.kafka.ssl_ca_location == "/etc/kafka/ca/ca.crt"
    assert found.kafka.sasl_password is not None
    assert found.records.text_fields == ("subject", "body")
    assert found.review.claim_s == 60
    assert found.web.host == "0.0.0.0"
    assert found.web.hostnames == ("desk.example.com",)
    mounted = {
        mount["name"]: mount["mountPath"]
        for mount in pod_of(documents)["containers"][0]["volumeMounts"]
    }
    assert str(found.project.taxonomy).startswith(mounted["config"] + "/")
    assert "taxonomy.toml" in find(documents, "ConfigMap", "-desk")["data"]


def test_secrets_are_only_references() -> None:
    """PostgreSQL's URL, Kafka's password, the client secret: none of them in a ConfigMap."""
    documents = render(None, EXAMPLES / "desk.yaml")
    found = variables(documents)
    assert found["CLERK_DESK_DATABASE__URL"] == {"name": "desk-database", "key": "url"}
    assert found["CLERK_DESK_OIDC__CLIENT_SECRET"] == {"name": "desk-oidc", "key": "client-secret"}
    own = {"sasl": {"secret": "desk-login", "usernameKey": "user"}}
    found = variables(rendered(SASL, desk(**own)))
    assert found["CLERK_DESK_KAFKA__SASL_USERNAME"] == {"name": "desk-login", "key": "user"}
    found = variables(rendered(SASL))
    assert found["CLERK_DESK_KAFKA__SASL_PASSWORD"] == {"name": "kafka-login", "key": "password"}


def test_sqlite_is_one_process_on_a_volume_that_stays() -> None:
    documents = rendered()
    deployment = find(documents, "Deployment", "-desk")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    claim = find(documents, "PersistentVolumeClaim", "-desk")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (mount,) = [
        mount["mountPath"]
        for mount in pod_of(documents)["containers"][0]["volumeMounts"]
        if mount["name"] == "database"
    ]
    assert variables(documents)["CLERK_DESK_DATABASE__URL"] == f"sqlite:///{mount}/desk.db"
    with pytest.raises(Refused, match="SQLite allows only one"):
        rendered(desk(replicaCount=2))


def test_with_postgresql_replicas_roll() -> None:
    """Without a volume; the schema is migrated before each pod starts."""
    documents = rendered(desk(replicaCount=3, database={"secret": "pg"}))
    assert not [one for one in documents if one["kind"] == "PersistentVolumeClaim"]
    pod = pod_of(documents)
    (first,) = pod["initContainers"]
    assert first["args"][0] == "migrate"
    assert first["env"] == pod["containers"][0]["env"]


def test_the_desks_network_policies() -> None:
    """In: the Ingress controller to the pages, scrapes to the metrics. Out: Kafka, and only what is
    used."""
    documents = rendered(desk(config={"web": {"metrics_port": 9100}}))
    pages, scrapes = find(documents, "NetworkPolicy", "-desk")["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in (pages, scrapes)] == [
        [8090],
        [9100],
    ]
    assert "ingress-nginx" in str(pages["from"])
    assert "ingress-nginx" not in str(scrapes["from"])
    assert egress_ports(documents) == {9092}
    assert egress_ports(rendered(desk(database={"secret": "pg"}))) == {9092, 5432}
    assert egress_ports(render(None, EXAMPLES / "desk.yaml")) == {9092, 5432, 443}


def test_the_ingress_leads_only_to_the_pages() -> None:
    """Metrics reveal volume and accuracy, so they stay inside."""
    documents = rendered(desk(ingress={"enabled": True, "host": "desk.example.com"}))
    (rule,) = find(documents, "Ingress", "-desk")["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"]["port"] == {"name": "http"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (desk(image={"repository": ""}), "desk.image.repository is empty"),
    (desk(config={"sign_in": {"method": "none"}}), "is none"),
    (desk(config={"sign_in": {"method": "proxy"}}), "proxy_addresses is empty"),
    (desk(config={"sign_in": {"method": "oidc"}}), "desk.config.oidc.issuer is empty"),
    (desk(config={"database": {"url": "x"}}), "use desk.database.secret"),
    (desk(ingress={"enabled": True}), "desk.ingress.host is empty"),
    (desk(config={"reviews": {}}), "reviews"),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_work_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        rendered(change)
    assert reason in str(caught.value)
