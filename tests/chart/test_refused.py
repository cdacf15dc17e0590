"""Values that cannot work: refused before anything reaches a cluster, with a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.render import MINIMAL, Refused, merge, render, render_minimal

SASL = {
    "config": {"kafka": {"security_protocol": "sasl_ssl", "sasl_mechanism": "SCRAM-SHA-512"}},
    "auth": {"sasl": {"secret": "kafka"}},
}
TRAINER = {
    "trainer": {
        "enabled": True,
        "image": {"repository": "registry.example/clerk/trainer"},
        "recipe": "name = 'x'",
        "data": {"persistentVolumeClaim": {"claimName": "data"}},
    }
}


def propose(proposals: dict[str, Any]) -> dict[str, Any]:
    """Values for proposals without the trainer's own job, with this volume."""
    decisions = {"persistentVolumeClaim": {"claimName": "decisions"}}
    job = {"enabled": True, "decisions": decisions, "proposals": proposals}
    return merge(TRAINER, {"trainer": {"enabled": False, "propose": job}})


PROPOSE = propose({"persistentVolumeClaim": {"claimName": "proposals"}})


def test_all_missing_values_are_named_at_once() -> None:
    with pytest.raises(Refused) as caught:
        render({})
    message = str(caught.value)
    for words in ("image.repository", "config.kafka.bootstrap_servers", "config.model.base",
                  "config.model.adapter", "storage.models", "storage.adapters"):  # fmt: skip
        assert f"- {words}" in message


def kafka(**keys: Any) -> dict[str, Any]:
    return {"config": {"kafka": keys}}


def model(**keys: Any) -> dict[str, Any]:
    return {"config": {"model": keys}}


TYPOS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"replicaCuont": 2}, ("replicaCuont",)),
    ({"image": {"repo": "x"}}, ("/image", "repo")),
    (kafka(grop_id="x"), ("/config/kafka", "grop_id")),
    ({"config": {"kafak": {}}}, ("/config", "kafak")),
    ({"autoscaling": {"keda": {"lagTreshold": 5}}}, ("/autoscaling/keda", "lagTreshold")),
]
TYPES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"replicaCount": "2"}, ("/replicaCount", "integer")),
    ({"replicaCount": -1}, ("/replicaCount", "minimum")),
    ({"gpu": {"count": 0.5}}, ("/gpu/count", "integer")),
    ({"env": {"LEVEL": 1}}, ("/env/LEVEL", "string")),
    ({"probes": {"startup": {"budgetSeconds": 60}}}, ("/probes/startup/budgetSeconds", "600")),
    ({"strategy": {"maxSurge": "a few"}}, ("/strategy/maxSurge",)),
    ({"image": {"digest": "latest"}}, ("/image/digest",)),
    ({"image": {"pullPolicy": "Sometimes"}}, ("/image/pullPolicy", "IfNotPresent")),
    ({"metrics": {"interval": "quick"}}, ("/metrics/interval",)),
    ({"fullnameOverride": "Not_A_Name"}, ("/fullnameOverride",)),
    ({"secretEnv": {"X": {"name": "secret"}}}, ("/secretEnv/X", "key")),
    (kafka(delivery="at_most_once"), ("/config/kafka/delivery", "exactly_once")),
    (kafka(publish_timeout_s=0), ("/config/kafka/publish_timeout_s",)),
    (kafka(consumer={"fetch": {"min": {"bytes": 1}}}), ("/config/kafka/consumer/fetch",)),
    ({"config": {"loop": {"max_in_flight": 1.5}}}, ("/config/loop/max_in_flight", "integer")),
    ({"autoscaling": {"kind": "both"}}, ("/autoscaling/kind", "keda", "hpa")),
    (
        {"storage": {"models": {"volume": {"emptyDir": {}}}}},
        ("/storage/models/volume", "maxProperties"),
    ),
    ({"storage": {"cache": {"volume": {"pvc": {}}}}}, ("/storage/cache/volume", "pvc")),
]
SENSE: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (model(base=""), ("config.model.base is empty", "adapterKind")),
    (model(adapter=""), ("config.model.adapter is empty",)),
    (model(base="models/base"), ("config.model.base", "absolute path")),
    (kafka(bootstrap_servers=""), ("config.kafka.bootstrap_servers is empty",)),
    (kafka(bootstrap_servers="kafka"), ("has no port", "networkPolicy.kafkaPorts")),
    (kafka(instance_id="a"), ("config.kafka.instance_id", "fence each other")),
    ({"config": {"http": {"port": 0}}}, ("config.http.port is 0", "probes")),
    ({"config": {"http": {"host": "127.0.0.1"}}}, ("config.http.host", "kubelet")),
    # Secrets.
    (kafka(sasl_password="hunter2"), ("config.kafka.sasl_password is a secret", "auth")),
    (kafka(ssl_key_password="hunter2"), ("config.kafka.ssl_key_password is a secret",)),
    (
        kafka(client={"sasl.password": "hunter2"}),
        ("config.kafka.client.sasl.password", "secretEnv"),
    ),
    (
        kafka(consumer={"ssl.key.pem": "hunter2"}),
        ("config.kafka.consumer.ssl.key.pem is a secret",),
    ),
    (kafka(client={"sasl.oauthbearer.client.secret": "hunter2"}), ("client.secret is a secret",)),
    (
        model(engine_args={"a": [{"hf_token": "hunter2"}]}),
        ("engine_args.a[0].hf_token is a secret",),
    ),
    (
        {"env": {"CLERK_KAFKA__SASL_PASSWORD": "hunter2"}},
        ("env.CLERK_KAFKA__SASL_PASSWORD", "secretEnv"),
    ),
    (
        {"env": {"A": "1"}, "secretEnv": {"A": {"name": "s", "key": "k"}}},
        ("env.A is also in secretEnv",),
    ),
    (
        {"secretEnv": {"CLERK_HTTP__HOST": {"name": "s", "key": "k"}}},
        ("secretEnv.CLERK_HTTP__HOST",),
    ),
    # Logging in.
    ({"auth": {"sasl": {"secret": "s"}}}, ("auth.sasl.secret", "security_protocol is plaintext")),
    (kafka(security_protocol="sasl_ssl", sasl_mechanism="PLAIN"), ("auth.sasl.secret",)),
    (merge(SASL, kafka(sasl_mechanism=None)), ("set config.kafka.sasl_mechanism",)),
    (merge(SASL, kafka(sasl_username="clerk")), ("leave config.kafka.sasl_username",)),
    ({"auth": {"tls": {"caSecret": "s"}}}, ("auth.tls", "set it to ssl or sasl_ssl")),
    (
        merge(
            kafka(security_protocol="ssl"), {"auth": {"tls": {"caSecret": "a", "caConfigMap": "b"}}}
        ),
        ("auth.tls.caSecret and auth.tls.caConfigMap",),
    ),
    (
        merge(
            kafka(security_protocol="ssl", ssl_ca_location="/x"),
            {"auth": {"tls": {"caSecret": "a"}}},
        ),
        ("config.kafka.ssl_ca_location is set by the chart from auth.tls",),
    ),
    (
        kafka(security_protocol="sasl_ssl", sasl_mechanism="OAUTHBEARER"),
        ("there is no source of tokens",),
    ),
    (
        kafka(security_protocol="sasl_ssl", sasl_mechanism="PLAIN", sasl_token_callback="a:b"),
        ("set it to OAUTHBEARER",),
    ),
    # Names that all pods would share.
    (
        kafka(consumer={"group.instance.id": "a"}),
        ("config.kafka.consumer.group.instance.id would be the same in every pod",),
    ),
    (
        {"secretEnv": {"CLERK_KAFKA__TRANSACTIONAL_ID": {"name": "s", "key": "k"}}},
        ("secretEnv.CLERK_KAFKA__TRANSACTIONAL_ID would be the same in every pod",),
    ),
    # Volumes.
    (
        {"storage": {"models": {"claim": {"create": True}}}},
        ("storage.models: volume and claim.create are both set",),
    ),
    ({"download": {"enabled": True}}, ("download.image is empty", "download.files")),
    (
        {
            "download": {
                "enabled": True,
                "command": ["x"],
                "files": [{"url": "https://a", "path": "/a", "sha256": "0" * 64}],
            }
        },
        ("download: files and command",),
    ),
    (
        {"download": {"files": [{"url": "https://a", "path": "/a", "sha256": "tbd"}]}},
        ("/download/files/0/sha256",),
    ),
    (
        {
            "rollback": {"enabled": True},
            "storage": {"adapters": {"volume": {"persistentVolumeClaim": {"readOnly": True}}}},
        },
        ("rollback: storage.adapters.volume is read-only",),
    ),
    ({"commonLabels": {"app.kubernetes.io/name": "x"}}, ("commonLabels.app.kubernetes.io/name",)),
    # Counts.
    (
        merge(kafka(topic_partitions=4), {"replicaCount": 6}),
        ("replicaCount is 6", "4 partitions", "2 workers would do nothing"),
    ),
    (
        merge(kafka(topic_partitions=4), {"autoscaling": {"kind": "keda", "maxReplicas": 5}}),
        ("autoscaling.maxReplicas is 5", "4 partitions"),
    ),
    (
        merge(kafka(retry_topic="retry"), {"autoscaling": {"kind": "keda", "minReplicas": 0}}),
        ("minReplicas is 0", "config.kafka.retry_topic", "set it to 1"),
    ),
    ({"autoscaling": {"kind": "keda", "minReplicas": 9}}, ("minReplicas is 9", "maxReplicas 4")),
    ({"autoscaling": {"kind": "hpa"}}, ("autoscaling.hpa.metrics is empty",)),
    (
        {"autoscaling": {"kind": "hpa", "minReplicas": 0, "hpa": {"metrics": [{"type": "Pods"}]}}},
        ("only kind keda can scale to 0",),
    ),
    (
        {"autoscaling": {"kind": "keda", "keda": {"metadata": {"topic": "x"}}}},
        ("autoscaling.keda.metadata.topic is set by the chart",),
    ),
    (
        merge(
            kafka(security_protocol="sasl_ssl", sasl_mechanism="PLAIN"),
            {
                "autoscaling": {"kind": "keda"},
                "secretEnv": {"CLERK_KAFKA__SASL_PASSWORD": {"name": "s", "key": "k"}},
            },
        ),
        ("KEDA must also log in", "autoscaling.keda.authentication"),
    ),
    (model(engine_args={"tensor_parallel_size": 2}), ("gpu.count is 1", "2 GPUs")),
    # Time.
    (
        {"terminationGracePeriodSeconds": 59},
        ("is 59", "drain for 60 s", "killed before it is done"),
    ),
    (
        merge({"config": {"loop": {"drain_s": 120}}}, {"terminationGracePeriodSeconds": 140}),
        ("is 140", "drain for 150 s"),
    ),
    ({"strategy": {"maxUnavailable": 0}}, ("strategy.maxSurge and .maxUnavailable are both 0",)),
    # Alerts.
    (
        {
            "metrics": {
                "monitor": "pod",
                "rules": {"enabled": True, "alerts": {"ClerkLoopHangs": {"enabled": False}}},
            }
        },
        ("metrics.rules.alerts.ClerkLoopHangs: there is no such alert", "ClerkLoopHung"),
    ),
    ({"metrics": {"rules": {"runbookBaseUrl": "git.example"}}}, ("runbookBaseUrl",)),
    ({"metrics": {"rules": {"jobs": ['a"b']}}}, ("/metrics/rules/jobs/0",)),
    (
        {"metrics": {"monitor": "none", "rules": {"enabled": True}}},
        ("metrics.rules: with metrics.monitor none, the release's job", "metrics.rules.jobs"),
    ),
    # The trainer.
    (
        {"trainer": {"enabled": True}},
        ("trainer.image.repository is empty", "trainer.recipe is empty", "trainer.data is empty"),
    ),
    (
        merge(TRAINER, {"storage": {"adapters": {"mountPath": ""}}}),
        ("trainer: storage.adapters.mountPath is empty",),
    ),
    (
        {"trainer": {"propose": {"enabled": True}}},
        (
            "trainer.image.repository is empty",
            "trainer.recipe is empty",
            "trainer.data is empty",
            "trainer.propose.decisions is empty",
            "trainer.propose.proposals is empty",
        ),
    ),
    (
        propose({"emptyDir": {}}),
        ("trainer.propose.proposals is not a persistent, writable volume",),
    ),
    (
        propose({"persistentVolumeClaim": {"claimName": "proposals", "readOnly": True}}),
        ("trainer.propose.proposals is not a persistent, writable volume",),
    ),
    (
        merge(PROPOSE, {"storage": {"adapters": {"mountPath": ""}}}),
        ("trainer.propose: storage.adapters.mountPath is empty",),
    ),
]


@pytest.mark.parametrize(
    ("values", "words"), [*TYPOS, *TYPES, *SENSE], ids=lambda parameter: str(parameter)[:60]
)
def test_refused_with_the_reason(values: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        render_minimal(values)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert "hunter2" not in message
    assert "nil pointer" not in message


def test_writing_to_an_image_is_refused() -> None:
    values = merge(merge(MINIMAL, TRAINER), {"download": {"enabled": True, "image": "x"}})
    values["storage"] = {
        name: {"volume": {"image": {"reference": "x"}}} for name in values["storage"]
    }
    with pytest.raises(Refused) as caught:
        render(values)
    for words in ("download: storage.models.volume is an image",
                  "trainer: storage.adapters.volume is an image"):  # fmt: skip
        assert words in str(caught.value)


# Named like a token, but not a secret.
TOKENS = model(engine_args={"long_prefill_token_threshold": 4096})


@pytest.mark.parametrize(
    "values",
    [{}, SASL, TRAINER, PROPOSE, TOKENS],
    ids=["minimal", "sasl", "trainer", "propose", "tokens"],
)
def test_the_values_that_refusals_start_from_work(values: dict[str, Any]) -> None:
    assert render_minimal(values)


def test_an_old_kubernetes_is_refused() -> None:
    with pytest.raises(Refused, match=r"1\.29"):
        render_minimal(kube_version="1.28.0")
