"""Values that cannot work: refused before anything reaches a cluster, with a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.render import MINIMAL, Refused, at, merge, render, render_minimal

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


def test_a_store_in_a_bucket_needs_no_volume() -> None:
    """And the jobs that write to it get its URL, the account and the variables."""
    in_bucket = {
        **MINIMAL,
        "config": merge(MINIMAL["config"], at("model.adapter", "s3://b/store")),
        "storage": {"models": MINIMAL["storage"]["models"]},
        "rollback": {"enabled": True},
        "secretEnv": {"AWS_SECRET_ACCESS_KEY": {"name": "bucket", "key": "secret"}},
    }
    documents = render(in_bucket)
    (job,) = [one for one in documents if one["kind"] == "CronJob"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "s3://b/store" in container["args"]
    assert "AWS_SECRET_ACCESS_KEY" in {one["name"] for one in container["env"]}
    assert "serviceAccountName" in pod
    assert [one["name"] for one in pod["volumes"]] == ["tmp"]
    with pytest.raises(Refused, match=r"storage.adapters is set, and config.model.adapter is in"):
        render(merge(in_bucket, at("storage.adapters.claim.create", True)))


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


SECRET = {"name": "s", "key": "k"}
READ_ONLY = at("storage.adapters.volume.persistentVolumeClaim.readOnly", True)
WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    # By the schema.
    ({"replicaCuont": 2}, ("replicaCuont",)),
    (kafka(grop_id="x"), ("/config/kafka", "grop_id")),
    ({"replicaCount": "2"}, ("/replicaCount", "integer")),
    (at("probes.startup.budgetSeconds", 60), ("/probes/startup/budgetSeconds", "600")),
    (at("image.digest", "latest"), ("/image/digest",)),
    (kafka(delivery="at_most_once"), ("/config/kafka/delivery", "exactly_once")),
    (kafka(consumer=at("fetch.min.bytes", 1)), ("/config/kafka/consumer/fetch",)),
    (at("storage.models.volume.emptyDir", {}), ("/storage/models/volume", "maxProperties")),
    # By the templates.
    (model(base=""), ("config.model.base is empty", "adapterKind")),
    (kafka(bootstrap_servers="kafka"), ("has no port", "networkPolicy.kafkaPorts")),
    (kafka(instance_id="a"), ("config.kafka.instance_id", "fence each other")),
    (at("config.http.host", "127.0.0.1"), ("config.http.host", "kubelet")),
    # Secrets.
    (kafka(sasl_password="hunter2"), ("config.kafka.sasl_password is a secret", "auth")),
    (kafka(consumer={"ssl.key.pem": "hunter2"}),
     ("config.kafka.consumer.ssl.key.pem is a secret",)),
    (kafka(registry={"basic.auth.user.info": "hunter2"}),
     ("config.kafka.registry.basic.auth.user.info is a secret", "secretEnv")),
    (model(engine_args={"a": [{"hf_token": "hunter2"}]}),
     ("engine_args.a[0].hf_token is a secret",)),
    (at("env.CLERK_KAFKA__SASL_PASSWORD", "hunter2"),
     ("env.CLERK_KAFKA__SASL_PASSWORD", "secretEnv")),
    ({"env": {"A": "1"}, "secretEnv": {"A": SECRET}}, ("env.A is also in secretEnv",)),
    # Logging in.
    (at("auth.sasl.secret", "s"), ("auth.sasl.secret", "security_protocol is plaintext")),
    (merge(SASL, kafka(sasl_mechanism=None)), ("set config.kafka.sasl_mechanism",)),
    (at("auth.tls.caSecret", "s"), ("auth.tls", "set it to ssl or sasl_ssl")),
    (kafka(security_protocol="sasl_ssl", sasl_mechanism="OAUTHBEARER"),
     ("there is no source of tokens",)),
    # Names that all pods would share.
    (at("secretEnv.CLERK_KAFKA__TRANSACTIONAL_ID", SECRET),
     ("secretEnv.CLERK_KAFKA__TRANSACTIONAL_ID would be the same in every pod",)),
    # Volumes.
    (at("storage.models.claim.create", True),
     ("storage.models: volume and claim.create are both set",)),
    (at("download.enabled", True), ("download.image is empty", "download.files")),
    (at("rollback.enabled", True) | READ_ONLY,
     ("rollback: storage.adapters.volume is read-only",)),
    # Counts.
    (merge(kafka(topic_partitions=4), {"replicaCount": 6}),
     ("replicaCount is 6", "4 partitions", "2 workers would do nothing")),
    (merge(kafka(retry_topic="retry"), at("autoscaling", {"kind": "keda", "minReplicas": 0})),
     ("minReplicas is 0", "config.kafka.retry_topic", "set it to 1")),
    (at("autoscaling", {"kind": "hpa", "minReplicas": 0, "hpa": {"metrics": [{"type": "Pods"}]}}),
     ("only kind keda can scale to 0",)),
    (merge(kafka(security_protocol="sasl_ssl", sasl_mechanism="PLAIN"),
           {"autoscaling": {"kind": "keda"}, "secretEnv": {"CLERK_KAFKA__SASL_PASSWORD": SECRET}}),
     ("KEDA must also log in", "autoscaling.keda.authentication")),
    (model(engine_args={"tensor_parallel_size": 2}), ("gpu.count is 1", "2 GPUs")),
    # The pod.
    (at("gpu.resource", "amd.com/gpu"), ("gpu.resource is amd.com/gpu", "ROCm")),
    (at("podSpec.volumes", []), ("podSpec.volumes is set by the chart", "extraVolumes")),
    ({"podSpec": {"dnsPolicy": "None"}, "workerPodSpec": {"dnsPolicy": "None"}},
     ("workerPodSpec.dnsPolicy is also in podSpec",)),
    # Time.
    (at("terminationGracePeriodSeconds", 59),
     ("is 59", "drain for 60 s", "killed before it is done")),
    # Alerts.
    (at("metrics", {"monitor": "pod", "rules": {
        "enabled": True, "alerts": {"ClerkLoopHangs": {"enabled": False}}}}),
     ("metrics.rules.alerts.ClerkLoopHangs: there is no such alert", "ClerkLoopHung")),
    (at("metrics", {"monitor": "none", "rules": {"enabled": True}}),
     ("metrics.rules: with metrics.monitor none, the release's job", "metrics.rules.jobs")),
    # The trainer.
    (at("trainer.propose.enabled", True),
     ("trainer.image.repository is empty", "trainer.propose.proposals is empty")),
    (propose({"emptyDir": {}}),
     ("trainer.propose.proposals is not a persistent, writable volume",)),
    (merge(TRAINER, at("storage.adapters.mountPath", "")),
     ("trainer: storage.adapters.mountPath is empty",)),
]  # fmt: skip


@pytest.mark.parametrize(("values", "words"), WRONG, ids=lambda parameter: str(parameter)[:60])
def test_refused_with_the_reason(values: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        render_minimal(values)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert "hunter2" not in message
    assert "nil pointer" not in message


# Named like a token, but not a secret.
TOKENS = model(engine_args={"long_prefill_token_threshold": 4096})


@pytest.mark.parametrize("values", [SASL, TRAINER, PROPOSE, TOKENS])
def test_the_values_that_refusals_start_from_work(values: dict[str, Any]) -> None:
    assert render_minimal(values)


def test_an_old_kubernetes_is_refused() -> None:
    with pytest.raises(Refused, match=r"1\.29"):
        render_minimal(kube_version="1.28.0")
