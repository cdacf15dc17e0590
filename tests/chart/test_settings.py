"""worker.toml: the worker reads every value that Helm writes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chart.render import EXAMPLES, find, render, render_minimal
from worker.settings import load_settings


def toml_of(config: dict[str, Any], **values: Any) -> str:
    documents = render_minimal({"config": config, **values})
    return str(find(documents, "ConfigMap")["data"]["worker.toml"])


def load(text: str, folder: Path) -> Any:
    file = folder / "worker.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file).settings


def test_every_section_reaches_the_worker(tmp_path: Path) -> None:
    """Numbers keep their type, lists stay lists, properties are complete."""
    topics = ['^a "quoted" \\. topic', "^b{1,2}"]
    consumer = {"session.timeout.ms": 45000, "check.crcs": True}
    kafka = {"input_topics": topics, "review_topic": "", "consumer": consumer}
    records = {"text_fields": ["subject", "body.text"], "id_field": None}
    loop = {"max_in_flight": 134217728, "drain_s": 12.5}
    config = {"kafka": kafka, "records": records, "loop": loop, "http": {"port": 9000}}
    found = load(toml_of(config), tmp_path)
    assert found.kafka.input_topics == tuple(topics)
    assert (found.kafka.review_topic, found.kafka.consumer) == ("", consumer)
    assert isinstance(found.kafka.consumer["session.timeout.ms"], int)
    assert found.records.text_fields == ("subject", "body.text")
    assert found.records.id_field == "id"  # null leaves it to the worker
    assert (found.loop.max_in_flight, found.loop.drain_s) == (134217728, 12.5)
    assert found.http.port == 9000


def test_an_encoder_needs_no_base(tmp_path: Path) -> None:
    """Its settings name no base: an empty one would be the working directory."""
    documents = render({}, EXAMPLES / "encoder.yaml")
    found = load(find(documents, "ConfigMap")["data"]["worker.toml"], tmp_path)
    assert found.model.base is None
    assert found.model.adapter == Path("/adapters")


def test_certificates_are_mounted_where_the_settings_say(tmp_path: Path) -> None:
    documents = render_minimal({
        "config": {"kafka": {"security_protocol": "ssl"}},
        "auth": {"tls": {
            "caConfigMap": "ca", "caKey": "root.pem", "clientSecret": "mine",
            "privateKeyPasswordKey": "pass",
        }},
    })  # fmt: skip
    found = load(find(documents, "ConfigMap")["data"]["worker.toml"], tmp_path).kafka
    deployment = find(documents, "Deployment")["spec"]["template"]["spec"]
    (container,) = deployment["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in deployment["volumes"]}
    assert found.ssl_ca_location == f"{mounts['kafka-ca']}/root.pem"
    assert volumes["kafka-ca"]["configMap"]["items"] == [{"key": "root.pem", "path": "root.pem"}]
    paths = {f"{mounts['kafka-client']}/{key['path']}"
             for key in volumes["kafka-client"]["secret"]["items"]}  # fmt: skip
    assert {found.ssl_certificate_location, found.ssl_key_location} == paths
    (password,) = [
        variable
        for variable in container["env"]
        if variable["name"] == "CLERK_KAFKA__SSL_KEY_PASSWORD"
    ]
    assert password["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "pass"}


def test_the_charts_variables_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker would refuse to start with an unknown variable."""
    documents = render_minimal({
        "config": {"kafka": {"security_protocol": "sasl_ssl", "sasl_mechanism": "PLAIN"}},
        "auth": {"sasl": {"secret": "login"}, "tls": {
            "clientSecret": "mine", "privateKeyPasswordKey": "pass"}},
    })  # fmt: skip
    (container,) = find(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    names = {
        variable["name"] for variable in container["env"] if variable["name"].startswith("CLERK_")
    }
    assert names == {
        "CLERK_KAFKA__INSTANCE_ID", "CLERK_HTTP__HOST", "CLERK_KAFKA__SASL_USERNAME",
        "CLERK_KAFKA__SASL_PASSWORD", "CLERK_KAFKA__SSL_KEY_PASSWORD",
    }  # fmt: skip
    for name in names:
        monkeypatch.setenv(name, "::")
    found = load(find(documents, "ConfigMap")["data"]["worker.toml"], tmp_path)
    assert found.kafka.instance_id == "::"
    assert found.http.host == "::"


# Text that YAML, TOML or a template might read as something else.
odd_text = st.one_of(
    st.sampled_from(["y", "on", "null", "~", "1e5", "0x1f", "{{ .Values }}", "a: b", "#", "'''",
                     '"""', "\x7f", "\u2028", "\U0001f600", "C:\\temp\\new",
                     "line\nline", "- x", " "]),
    # Not in YAML: control characters, surrogates, noncharacters.
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=20),
)  # fmt: skip
# Helm's numbers are floats: larger ones are not exact.
numbers = st.booleans() | st.integers(-(10**15), 10**15) | st.floats(-1e15, 1e15)
plain_key = st.text("abcdefghijklmnopqrstuvwxyz._-0123456789", min_size=1, max_size=12).filter(
    lambda key: not any(word in key for word in ("password", "secret", "jaas", "token", "key.pem"))
)
engine_args = st.dictionaries(
    plain_key,
    st.recursive(
        odd_text | numbers,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_key, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arguments=engine_args, group=odd_text.filter(bool))
def test_any_text_and_number_arrives_unchanged(arguments: dict[str, Any], group: str) -> None:
    """Any text, number, list or table comes out of the TOML unchanged."""
    config = {"kafka": {"group_id": group}, "model": {"engine_args": arguments}}
    found = tomllib.loads(toml_of(config))
    assert found["kafka"]["group_id"] == group
    assert found["model"].get("engine_args", {}) == arguments
