"""The chart's workers and the objects around them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.chart.references import broken
from tests.chart.render import (
    CHART,
    MINIMAL,
    find,
    merge,
    pods,
    render,
    render_minimal,
    worker_container,
)

KEDA = CHART / "examples" / "keda.yaml"


def kinds(documents: list[dict[str, Any]]) -> set[str]:
    return {document["kind"] for document in documents}


@pytest.mark.parametrize(("budget", "period"), [(601, 7), (600, 600), (3600, 11)])
def test_the_start_up_time_is_long_enough(budget: int, period: int) -> None:
    """Rounded up to whole probes; the rollout's deadline is longer than a start."""
    startup = {"probes": {"startup": {"budgetSeconds": budget, "periodSeconds": period}}}
    documents = render_minimal(startup)
    probe = worker_container(documents)["startupProbe"]
    assert budget <= probe["failureThreshold"] * period < budget + period
    assert find(documents, "Deployment")["spec"]["progressDeadlineSeconds"] > budget + 90


@pytest.mark.parametrize(
    ("config", "grace"),
    [
        ({"loop": {"drain_s": 0.5}, "kafka": {"publish_timeout_s": 2.5}}, 8 + 30),
        ({"loop": {"drain_s": None}, "kafka": {"publish_timeout_s": None}}, 90),
    ],
)
def test_the_grace_period_is_the_drain_and_half_a_minute(
    config: dict[str, Any], grace: int
) -> None:
    spec = find(render_minimal({"config": config}), "Deployment")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == grace


def test_the_grace_period_covers_the_workers_limit() -> None:
    """The worker itself counts with three publishes (max_iteration_s)."""
    from worker import policies
    from worker.settings import Settings

    settings = Settings()
    iteration_s = policies.max_iteration_s(
        policies.kafka_config(settings.kafka), policies.loop_policy(settings)
    )
    spec = find(render_minimal(), "Deployment")["spec"]["template"]["spec"]
    # An iteration has two of publish, backoff and revoke; the drain's last one has one, closing
    # none.
    assert spec["terminationGracePeriodSeconds"] >= settings.loop.drain_s + iteration_s / 2


def test_only_changed_settings_restart_the_pods() -> None:
    """The checksum follows worker.toml; replicas and a new chart version leave the pods alone."""

    def template(values: dict[str, Any]) -> Any:
        return find(render_minimal(values), "Deployment")["spec"]["template"]

    before = template({})
    assert template({"replicaCount": 3}) == before
    assert template({"metrics": {"monitor": "pod"}, "tests": {"targets": ["a:1"]}}) == before
    after = template({"config": {"loop": {"deadline_s": 61}}})
    assert after["metadata"]["annotations"] != before["metadata"]["annotations"]
    assert "helm.sh/chart" not in before["metadata"]["labels"]


def test_models_are_read_only_for_the_worker_and_writable_for_the_download() -> None:
    (pod,) = [pod for pod in pods(render(None, KEDA)) if pod.owner["kind"] == "Deployment"]
    download, _, worker = pod.containers
    written = [
        {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        for container in (worker, download)
    ]
    assert written == [{"cache", "shm", "tmp"}, {"models", "adapters", "tmp"}]


def test_claims_outlive_the_release() -> None:
    claims = [claim for claim in render(None, KEDA) if claim["kind"] == "PersistentVolumeClaim"]
    assert [claim["metadata"]["name"] for claim in claims] == [
        "clerk-filing-clerk-models", "clerk-filing-clerk-adapters", "clerk-cache",
        "support-dataset", "support-runs", "support-decisions", "support-proposals",
    ]  # fmt: skip
    for claim in claims:
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_keda_scales_on_the_workers_topic_and_group() -> None:
    """Group, topic and offset policy are the worker's; it logs in with the same Secret."""
    documents = render(None, KEDA)
    (trigger,) = find(documents, "ScaledObject")["spec"]["triggers"]
    expected = {
        "consumerGroup": "support.clerk-filing-clerk", "topic": "support.messages",
        "offsetResetPolicy": "earliest", "sasl": "scram_sha512", "tls": "enable",
    }  # fmt: skip
    assert expected.items() <= trigger["metadata"].items()
    auth = find(documents, "TriggerAuthentication")
    given = {entry["parameter"]: entry["name"] for entry in auth["spec"]["secretTargetRef"]}
    assert given == {"username": "kafka-login", "password": "kafka-login"}


def test_keda_takes_more_triggers_and_the_rest_of_its_advanced() -> None:
    cron = {"type": "cron", "metadata": {"timezone": "Europe/Berlin", "start": "0 7 * * *",
                                         "end": "0 9 * * *", "desiredReplicas": "4"}}  # fmt: skip
    advanced = {"restoreToOriginalReplicaCount": True}
    documents = render({"autoscaling": {"keda": {"triggers": [cron], "advanced": advanced}}}, KEDA)
    spec = find(documents, "ScaledObject")["spec"]
    assert [trigger["type"] for trigger in spec["triggers"]] == ["kafka", "cron"]
    assert spec["advanced"]["restoreToOriginalReplicaCount"] is True
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]


def test_variables_may_come_from_the_pod_and_from_whole_secrets() -> None:
    node = {"fieldRef": {"fieldPath": "spec.nodeName"}}
    values = {
        "env": {"NODE": node, "PLAIN": "1"},
        "envFrom": [{"secretRef": {"name": "more"}}],
        "topics": {"create": True},
    }
    for pod in pods(render(values, CHART / "examples" / "desk.yaml")):
        for container in pod.spec["containers"]:
            if container["name"] in {"worker", "topics", "desk"}:
                given = {each["name"]: each for each in container["env"]}
                assert given["NODE"]["valueFrom"] == node
                assert given["PLAIN"]["value"] == "1"
                assert container["envFrom"] == values["envFrom"]


def test_a_worker_takes_devices_by_claims_and_any_other_field_of_its_pod() -> None:
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    values = {
        "gpu": {"count": 0},
        "resources": {"claims": [{"name": "gpu"}]},
        "podSpec": {"dnsPolicy": "ClusterFirst", "hostUsers": False},
        "workerPodSpec": {"resourceClaims": claims, "schedulerName": "volcano"},
        "serviceAccount": {"automountToken": True},
    }
    documents = render_minimal(values)
    spec = find(documents, "Deployment")["spec"]["template"]["spec"]
    assert (spec["resourceClaims"], spec["schedulerName"]) == (claims, "volcano")
    assert worker_container(documents)["resources"]["claims"] == [{"name": "gpu"}]
    assert (spec["hostUsers"], spec["automountServiceAccountToken"]) == (False, True)
    assert not any("nvidia.com/gpu" in str(part) for part in spec["containers"][0]["resources"])


def test_workers_and_desk_reach_the_schema_registry() -> None:
    kafka = {"registry": {"url": "https://one:8081,http://two"}}
    documents = render({"config": {"kafka": kafka}}, CHART / "examples" / "desk.yaml")
    for policy in (each for each in documents if each["kind"] == "NetworkPolicy"):
        if policy["metadata"]["name"].endswith(("filing-clerk", "-desk")):
            ports = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
            assert [8081, 80] in ports, policy["metadata"]["name"]
    toml = find(documents, "ConfigMap", "-desk")["data"]["desk.toml"]
    assert "https://one:8081" in toml


@pytest.mark.parametrize("inputs", [["chat", "mail"], ["^support.messages.*"]])
def test_keda_scales_on_the_whole_group_for_several_topics(inputs: list[str]) -> None:
    """Without a topic KEDA adds up the lag of all topics of the group."""
    changes = {"config": {"kafka": {"input_topics": inputs}}, "autoscaling": {"kind": "keda"}}
    (trigger,) = find(render_minimal(changes), "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == "support.clerk-filing-clerk"
    assert "topic" not in trigger["metadata"]


RULES = CHART / "files" / "rules.yaml"
HOME = "https://git.example/clerk/filing-clerk"


def test_the_rules_are_the_files_for_this_release() -> None:
    """Without the release's matchers, labels and runbook URL, they are equal to the file."""
    made = find(render(None, KEDA), "PrometheusRule")
    release, *groups = made["spec"]["groups"]
    assert release["name"] == "filing-clerk.release"
    assert made["metadata"]["labels"]["release"] == "prometheus"
    own = 'namespace="support",job=~"support/clerk-filing-clerk"'
    written = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    (lag,) = (
        rule["expr"]
        for group in written
        for rule in group["rules"]
        if rule.get("record") == "job:clerk_group_lag:max"
    )
    for group in groups:
        for rule in group["rules"]:
            rule["expr"] = rule["expr"].replace(f"{{{own}}}", "").replace(f"{own},", "")
            assert rule["labels"].pop("namespace") == "support"
            assert rule["labels"].pop("job") == "support/clerk-filing-clerk"
            if rule.get("record") == "job:clerk_group_lag:max":
                rule["expr"] = lag
            if not rule["labels"]:
                del rule["labels"]
            elif "runbook_url" in rule["annotations"]:
                address = rule["annotations"]["runbook_url"].removeprefix(f"{HOME}/blob/main/")
                rule["annotations"]["runbook_url"] = address
    assert groups == written


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"metrics": {"monitor": "service"}, "replicaCount": 3},
         ("clerk-filing-clerk", "vector(3)")),
        ({"metrics": {"monitor": "pod"}, "autoscaling": {"kind": "keda", "minReplicas": 0}},
         ("support/clerk-filing-clerk", "vector(0)")),
        ({"metrics": {"monitor": "pod"}, "replicaCount": 0}, None),
        ({"metrics": {"monitor": "none", "rules": {"jobs": ["own", "own-desk"]}}},
         ("own", "vector(1)")),
    ],
)  # fmt: skip
def test_a_release_records_that_it_should_have_workers(
    values: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    """Under the job that its monitor sets; otherwise the alert would miss a release that was never
    ready."""
    merged = merge(values, {"metrics": {"rules": {"enabled": True}}})
    groups = find(render_minimal(merged), "PrometheusRule")["spec"]["groups"]
    found = [rule for group in groups for rule in group["rules"]
             if rule.get("record") == "job:clerk_release:workers"]  # fmt: skip
    if expected is None:
        assert found == []
        return
    job, expr = expected
    (rule,) = found
    assert rule["labels"] == {"namespace": "support", "job": job}
    assert rule["expr"] == expr


def alerts_of(values: dict[str, Any]) -> dict[str, Any]:
    merged = merge(values, {"metrics": {"monitor": "pod", "rules": {"enabled": True}}})
    groups = find(render_minimal(merged), "PrometheusRule")["spec"]["groups"]
    assert all(group["rules"] for group in groups)
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_alerts_are_disabled_and_labelled_one_by_one() -> None:
    plain = alerts_of({})
    own = {
        "ClerkDrift": {"enabled": False},
        "ClerkLoopHung": {"severity": "warning", "labels": {"team": "support"}},
        "ClerkStalled": {"enabled": True},
    }
    changed = alerts_of({"metrics": {"rules": {"alerts": own}}})
    assert plain.keys() - changed.keys() == {"ClerkDrift"}
    assert changed["ClerkLoopHung"]["labels"] == {
        "severity": "warning", "team": "support",
        "namespace": "support", "job": "support/clerk-filing-clerk",
    }  # fmt: skip
    for name in changed.keys() - {"ClerkLoopHung"}:
        assert changed[name] == plain[name]


def test_a_pager_can_open_the_runbook_if_there_is_one() -> None:
    given = {"metrics": {"rules": {"runbookBaseUrl": "https://git.example/clerk/blob/v1/"}}}
    for name, rule in alerts_of(given).items():
        address = f"https://git.example/clerk/blob/v1/docs/operations.md#{name.lower()}"
        assert rule["annotations"]["runbook_url"] == address
    assert all("runbook_url" not in rule["annotations"] for rule in alerts_of({}).values())


def test_the_objective_and_thresholds_are_values() -> None:
    plain = alerts_of({})
    own = {"ClerkStalled": {"expr": "clerk_ready < 7", "for": "1h30m"}}
    rules = {"objective": {"seconds": 5, "slowRatio": 0.05}, "alerts": own}
    values = {"metrics": {"monitor": "pod", "rules": {"enabled": True, **rules}}}
    changed = alerts_of(values)
    assert (changed["ClerkStalled"]["expr"], changed["ClerkStalled"]["for"]) == (
        "clerk_ready < 7", "1h30m"
    )  # fmt: skip
    fast = changed["ClerkLatencyBurnsFast"]
    assert "> 14.4 * 0.05" in fast["expr"]
    assert " 5 s " in fast["annotations"]["summary"]
    assert "at most 5 %" in fast["annotations"]["description"]
    assert "at most 1 %" in plain["ClerkLatencyBurnsFast"]["annotations"]["description"]
    groups = find(render_minimal(values), "PrometheusRule")["spec"]["groups"]
    slow = [rule["expr"] for group in groups for rule in group["rules"]
            if "slow_ratio" in rule.get("record", "")]  # fmt: skip
    assert len(slow) == 4
    assert all('le=~"5(\\\\.0)?"' in expr for expr in slow)


def test_an_objective_is_a_bucket_of_the_metric() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    rules = schema["properties"]["metrics"]["properties"]["rules"]["properties"]
    allowed = rules["objective"]["properties"]["seconds"]["enum"]
    source = (CHART.parents[1] / "worker" / "observe" / "metrics.py").read_text(encoding="utf-8")
    buckets = {
        float(number)
        for line in re.findall(r"^(?:DURATIONS|AGES) = \((.*)\)$", source, re.MULTILINE)
        for number in re.findall(r"\d+\.\d+", line)
    }
    assert {float(seconds) for seconds in allowed} <= buckets


@pytest.mark.parametrize("given", ["", "sum(kafka_consumergroup_lag)"])
def test_the_groups_lag_at_zero_workers_is_of_this_release(given: str) -> None:
    values = {"metrics": {"monitor": "pod", "rules": {"enabled": True, "groupLag": given}}}
    groups = find(render_minimal(values), "PrometheusRule")["spec"]["groups"]
    (rule,) = [rule for group in groups for rule in group["rules"]
               if rule.get("record") == "job:clerk_group_lag:max"]  # fmt: skip
    assert rule["labels"] == {"namespace": "support", "job": "support/clerk-filing-clerk"}
    if given:
        assert rule["expr"] == f"max({given})"
    else:
        assert 'scaledObject="clerk-filing-clerk",exported_namespace="support"' in rule["expr"]


def test_a_parent_chart_may_switch_it_off_by_a_condition() -> None:
    assert render_minimal({"enabled": True}) == render_minimal({})


@pytest.mark.parametrize(
    ("monitor", "kind", "key"),
    [("pod", "PodMonitor", "podMetricsEndpoints"), ("service", "ServiceMonitor", "endpoints")],
)
def test_prometheus_finds_the_workers_port_by_name(monitor: str, kind: str, key: str) -> None:
    documents = render_minimal({"metrics": {"monitor": monitor}})
    (endpoint,) = find(documents, kind)["spec"][key]
    names = {port["name"] for port in worker_container(documents)["ports"]}
    assert endpoint["port"] in names & {
        port["name"] for port in find(documents, "Service")["spec"]["ports"]
    }


def test_the_network_policy_allows_kafka_dns_and_scrapes() -> None:
    documents = render(None, CHART / "examples" / "air-gapped.yaml")
    policy = find(documents, "NetworkPolicy", "filing-clerk")["spec"]
    dns, kafka = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    names = dns["to"][0]["namespaceSelector"]["matchExpressions"][0]["values"]
    assert "kube-system" in names, "not any server on port 53"
    assert kafka["ports"] == [{"port": 9093, "protocol": "TCP"}]
    assert kafka["to"] == [{"ipBlock": {"cidr": "10.20.0.0/24"}}]
    (scrape,) = policy["ingress"]
    assert [port["port"] for port in scrape["ports"]] == [8080]
    trainer = find(render(None, KEDA), "NetworkPolicy", "-trainer")["spec"]
    assert trainer["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in trainer


def test_a_password_can_be_a_file() -> None:
    """For workers and the topics job; the user name stays a variable."""
    documents = render({"auth": {"sasl": {"passwordAsFile": True}}}, KEDA)
    for pod in pods(documents):
        if pod.owner["kind"] not in {"Deployment", "Job"}:
            continue
        container = pod.containers[-1]
        names = {variable["name"] for variable in container["env"]}
        assert "CLERK_KAFKA__SASL_USERNAME" in names
        assert "CLERK_KAFKA__SASL_PASSWORD" not in names
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["kafka-login"] == "/etc/kafka/login"
    text = find(documents, "ConfigMap", "filing-clerk")["data"]["worker.toml"]
    assert '"sasl_password_file" = "/etc/kafka/login/password"' in text
    assert list(broken(documents, frozenset({"kafka-login", "kafka-ca", "model-store"}))) == []


TRACING = {"config": {"tracing": {"enabled": True}}}


@pytest.mark.parametrize(
    ("env", "port"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, 4317),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example"}, 443),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:1/x",
          "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:2"}, 1),
    ],
)  # fmt: skip
def test_the_collector_is_reachable(env: dict[str, str], port: int) -> None:
    """A policy that lets only Kafka through would block them."""
    peer = {"podSelector": {"matchLabels": {"app": "collector"}}}
    policy = {"networkPolicy": {"tracingPeers": [peer]}}
    documents = render_minimal(merge(merge(TRACING, policy), {"env": env}))
    *_, rule = find(documents, "NetworkPolicy", "filing-clerk")["spec"]["egress"]
    assert rule == {"ports": [{"port": port, "protocol": "TCP"}], "to": [peer]}
    plain = find(render_minimal({"env": env}), "NetworkPolicy", "filing-clerk")["spec"]
    assert len(plain["egress"]) == 2


def test_the_rollback_is_a_suspended_job() -> None:
    documents = render_minimal({"rollback": {"enabled": True}})
    cron = find(documents, "CronJob", "-rollback")["spec"]
    assert cron["suspend"] is True
    job = cron["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    (container,) = job["template"]["spec"]["containers"]
    assert "readOnly" not in container["volumeMounts"][0]
    assert "egress" not in find(documents, "NetworkPolicy", "-rollback")["spec"]


def test_common_labels_and_pod_settings_apply_everywhere() -> None:
    """Common labels on all objects, the pods' own fields in each; selectors stay as they are."""
    values = {
        "commonLabels": {"team": "support"},
        "podLabels": {"team": "workers"},
        "podSpec": {"hostAliases": [{"ip": "10.0.0.5", "hostnames": ["kafka-1.example"]}]},
        "rollback": {"enabled": True},
        "extraObjects": [{
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-own"},
            "data": {"x": "{{ .Values.image.tag }}y"},
        }],
    }  # fmt: skip
    documents = render(values, KEDA)
    (own,) = [document for document in documents if document["metadata"]["name"] == "clerk-own"]
    assert own["data"] == {"x": "y"}
    for document in documents:
        if "helm.sh/chart" in document["metadata"].get("labels", {}):
            assert document["metadata"]["labels"]["team"] == "support", document["kind"]
    assert "team" not in find(documents, "Deployment")["spec"]["selector"]["matchLabels"]
    for pod in pods(documents):
        worker = pod.owner["kind"] == "Deployment"
        assert pod.labels["team"] == ("workers" if worker else "support"), pod.name
        assert pod.spec["hostAliases"][0]["ip"] == "10.0.0.5", pod.name


def test_the_trainer_runs_step_by_step_and_accepts_a_refusal() -> None:
    cron = find(render(None, KEDA), "CronJob", "-trainer")["spec"]
    assert cron["suspend"] is True
    job = cron["jobTemplate"]["spec"]
    spec = job["template"]["spec"]
    steps = [*spec["initContainers"], *spec["containers"]]
    assert [step["args"][0] for step in steps] == ["train", "evaluate", "publish"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3, 4]
    assert spec["restartPolicy"] == "Never"  # which that policy needs
    for step in steps:
        variables = {variable["name"] for variable in step["env"]}
        used = {
            word for arg in step["args"] for word in ("RUN", "BASE", "STORE") if f"$({word})" in arg
        }
        assert used <= variables


def test_the_trainers_steps_are_its_commands() -> None:
    import typer.main

    from trainer.cli.main import app

    group: Any = typer.main.get_command(app)
    for job in ("-trainer", "-propose"):
        cron = find(render(None, KEDA), "CronJob", job)["spec"]
        spec = cron["jobTemplate"]["spec"]["template"]["spec"]
        for step in [*spec["initContainers"], *spec["containers"]]:
            name, *rest = step["args"]
            options = {each for parameter in group.commands[name].params for each in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= options, name


def test_proposals_are_kept_and_use_the_desks_exports() -> None:
    """Answers are carried out first; decisions are read-only; each job has its own folder, so a
    restarted pod continues. It works without the trainer's own job."""
    documents = render({"trainer": {"enabled": False}}, KEDA)
    cron = find(documents, "CronJob", "-propose")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    spec = cron["jobTemplate"]["spec"]["template"]["spec"]
    (carries_out,), (proposes,) = spec["initContainers"], spec["containers"]
    assert "--decided" in carries_out["args"]
    run = next(each["value"] for each in proposes["env"] if each["name"] == "RUN")
    assert run == "/proposals/$(JOB)"
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in proposes["volumeMounts"]}
    assert mounts["/decisions"] is True
    assert mounts["/proposals"] is mounts["/data"] is mounts["/adapters"] is False


def test_the_chart_renders_as_a_subchart(tmp_path: Any) -> None:
    """Helm passes a subchart the key "global", which a closed schema would refuse."""
    import shutil

    parent = tmp_path / "parent"
    shutil.copytree(CHART, parent / "charts" / "filing-clerk")
    (parent / "Chart.yaml").write_text("apiVersion: v2\nname: parent\nversion: 1.0.0\n")
    documents = render({"global": {"a": 1}, "filing-clerk": MINIMAL}, chart=parent)
    assert find(documents, "Deployment")
