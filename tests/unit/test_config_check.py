"""Problems that keep a worker from starting, reported all at once, and warnings."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from tests.support.published import publish
from tests.support.tiny_onnx import write_tiny_encoder
from tests.support.toy_adapter import cascade_of, toy_manifest
from worker.app import run_worker
from worker.config_check import (
    BROKEN_RELEASES,
    adapter_problems,
    notes,
    refuse,
    settings_problems,
)
from worker.contract import AdapterRefused, read_manifest, write_manifest
from worker.contract.store import CURRENT_NAME, CanaryPointer, Pointer, write_canary, write_pointer
from worker.errors import SettingsError
from worker.settings import Settings


def given(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


def problems_of(settings: Settings) -> list[str]:
    """The problems of the settings, one line each."""
    return [str(problem) for problem in settings_problems(settings)]


def refused(settings: Settings, **how: Any) -> list[str]:
    """The problems of the adapter, one line each."""
    return [str(problem) for problem in adapter_problems(settings, **how)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that carries its whole model."""
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "adapter")


def stored(store: Path, made: Path) -> str:
    """Put an adapter into a store; return its digest."""
    digest = read_manifest(made).digest
    made.rename(store / digest)
    return digest


def test_the_defaults_have_no_problem_but_the_adapter_that_is_missing() -> None:
    assert problems_of(Settings()) == []
    (problem,) = refused(Settings())
    assert problem.startswith("model.adapter is not set")


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    settings = given(
        kafka={
            "output_topic": "support.messages",
            "dead_letter_topic": "support labels",
            "retry_topic": "support.labels.review",
            "ssl_ca_location": str(tmp_path / "ca.pem"),
            "sasl_password_file": tmp_path / "password",
            "consumer": {"enable.auto.commit": True, "auto.offset.reset": "latest"},
            "producer": {"acks": 1},
        },
    )
    found = problems_of(settings)
    for said in (
        "kafka.dead_letter_topic: 'support labels' is not the name of a topic",
        "'support.messages' is read (kafka.input_topics) and written (kafka.output_topic)",
        "kafka.retry_topic and kafka.review_topic are both 'support.labels.review'",
        f"kafka.ssl_ca_location: {tmp_path}/ca.pem cannot be read: No such file or directory",
        f"kafka.sasl_password_file: {tmp_path}/password cannot be read: No such file",
        "kafka.consumer: 'enable.auto.commit' cannot be set",
        "kafka.consumer: 'auto.offset.reset' must be",
        "kafka.producer: 'acks' must be all",
    ):
        assert len([line for line in found if line.startswith(said)]) == 1, (said, found)
    assert len(found) == 8
    with pytest.raises(SettingsError) as caught:
        run_worker(settings)
    assert all(line in str(caught.value) for line in found)
    assert "model.adapter is not set" in str(caught.value)


@pytest.mark.parametrize(
    ("kafka", "says"),
    [
        (
            {"review_topic": "support.messages"},
            r"written \(kafka\.review_topic\): .*read its own results",
        ),
        ({"dead_letter_topic": "support.messages"}, "read its own results"),
        ({"input_topics": ["support.*"]}, r"input_topics: 'support\.\*'.*a pattern begins with \^"),
        ({"dead_letter_topic": "support.labels"}, "dead letters need their own"),
        ({"output_topic": ""}, "kafka.output_topic: '' is not the name of a topic"),
        ({"retry_topic": "support.labels.dead"}, "retry_topic and kafka.dead_letter_topic"),
    ],
)
def test_topics_in_conflict_are_refused(kafka: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        refuse([*settings_problems(given(kafka=kafka))])


def test_a_shadow_needs_a_topic_of_its_own_and_may_name_any_where_there_is_none() -> None:
    adapters = {"shadow_topic": "support.labels"}
    assert problems_of(given(adapters=adapters)) == []
    (problem,) = problems_of(given(adapters={**adapters, "shadow": "abcd"}))
    assert "adapters.shadow_topic and kafka.output_topic are both 'support.labels'" in problem


@pytest.mark.parametrize(
    ("kafka", "says"),
    [
        (
            {"consumer": {"group.instance.id": "clerk"}},
            r"^kafka\.consumer\.group\.instance\.id is 'clerk' and kafka\.instance_id 'pod-0'",
        ),
        ({"client": {"group.instance.id": "clerk"}}, r"^kafka\.client\.group\.instance\.id"),
    ],
)
def test_a_name_that_all_pods_would_share_is_refused(kafka: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        refuse([*settings_problems(given(kafka={**kafka, "instance_id": "pod-0"}))])
    assert problems_of(given(kafka={k: v for k, v in kafka.items() if k != "client"})) == []
    own = {"group.instance.id": "pod-0"}
    assert problems_of(given(kafka={"consumer": own, "instance_id": "pod-0"})) == []


def test_names_that_a_file_gives_and_releases_that_break_a_promise_are_noted() -> None:
    """They may be right: a file may be for one worker, a broker of any release."""
    kafka = {"instance_id": "a", "consumer": {"group.instance.id": "a"}}
    (first, second) = notes(given(kafka=kafka), {"kafka.instance_id": "file worker.toml"})
    assert first.startswith("kafka.instance_id comes from file worker.toml: workers")
    assert second == BROKEN_RELEASES
    for release in ("4.3.0", "4.3.1", "4.4.0"):
        assert release in BROKEN_RELEASES
    assert notes(given(kafka=kafka), {"kafka.instance_id": "environment"}) == [second]
    once = {"delivery": "at_least_once", "consumer": {"group.instance.id": "a"}}
    (only,) = notes(given(kafka=once), {})
    assert only.startswith("kafka.consumer.group.instance.id names one member of the group")


def test_files_that_the_client_needs_are_there_and_readable(tmp_path: Path) -> None:
    found = problems_of(
        given(
            kafka={
                "ssl_key_location": str(tmp_path / "tls.key"),
                "client": {"ssl.keystore.location": str(tmp_path / "store.p12")},
                "consumer": {"sasl.kerberos.keytab": "/nowhere/keytab"},
            }
        )
    )
    assert [line.split(":")[0] for line in found] == [
        "kafka.ssl_key_location",
        "kafka.client.ssl.keystore.location",
        "kafka.consumer.sasl.kerberos.keytab",
    ]
    fine = {"ssl_ca_location": str(tmp_path), "client": {"https.ca.location": "probe"}}
    assert problems_of(given(kafka=fine)) == []


def test_a_token_callback_has_to_be_importable_and_is_not_called() -> None:
    login = {"security_protocol": "sasl_ssl", "sasl_mechanism": "OAUTHBEARER"}
    for name, said in (("tests.support.nowhere:token", ["cannot be imported"]),
                       ("tests.support.unsigned_token:broken", [])):  # fmt: skip
        found = problems_of(given(kafka={**login, "sasl_token_callback": name}))
        assert [line for line in found if "cannot be imported" in line] == found
        assert len(found) == len(said)


def test_an_adapter_that_can_be_served_has_no_problem(encoder: Path) -> None:
    assert refused(given(model={"adapter": encoder})) == []


def test_an_altered_file_is_reported(tmp_path: Path) -> None:
    adapter = write_tiny_encoder(tmp_path / "adapter")
    path = adapter / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    settings = given(model={"adapter": adapter})
    (problem,) = refused(settings)
    assert str(path) in problem
    assert refused(settings, digests=False) == []


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes packages look as if they were not installed."""
    find = importlib.util.find_spec

    def hide(*names: str) -> None:
        def found(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name in names else find(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", found)

    return hide


def test_what_the_kind_needs_has_to_be_installed(
    tmp_path: Path, encoder: Path, missing: Callable[..., None]
) -> None:
    missing("onnxruntime")
    (problem,) = refused(given(model={"adapter": encoder}))
    assert "'encoder', needs onnxruntime: in the checkout, pip install" in problem
    lora = publish(tmp_path)
    missing("vllm", "tokenizers")
    (problem,) = refused(given(model={"adapter": lora.adapter, "base": lora.base}))
    assert problem.startswith("vLLM is not installed")


def test_a_missing_or_different_base_is_reported(
    tmp_path: Path, missing: Callable[..., None]
) -> None:
    missing("tokenizers")  # the toy's tokens are made by none
    lora = publish(tmp_path)
    at = {"adapter": lora.adapter}
    assert refused(given(model={**at, "base": lora.base})) == []
    (problem,) = refused(given(model=at))
    assert "needs its base, toy-base (main): name its directory in model.base" in problem
    (problem,) = refused(given(model={**at, "base": tmp_path / "none"}))
    assert "there is no such base model directory" in problem
    (lora.base / "config.json").write_text('{"other": 1}')
    (problem,) = refused(given(model={**at, "base": lora.base}))
    assert str(lora.base / "config.json") in problem


@pytest.mark.parametrize("digests", [True, False])
def test_a_missing_stage_is_reported(tmp_path: Path, digests: bool) -> None:
    small, large = (write_tiny_encoder(tmp_path / name, seed=at) for at, name in enumerate("ab"))
    cascade = cascade_of(read_manifest(small), read_manifest(large))
    for made in (small, large):
        stored(tmp_path, made)
    (tmp_path / cascade.digest).mkdir()
    write_manifest(tmp_path / cascade.digest, cascade)
    settings = given(model={"adapter": tmp_path / cascade.digest})
    assert refused(settings, digests=digests) == []
    last = tmp_path / cascade.stages[1].digest
    last.rename(tmp_path / "elsewhere")
    (problem,) = refused(settings, digests=digests)
    assert str(last) in problem


def test_a_store_is_checked_by_its_current_adapter(tmp_path: Path) -> None:
    digest = stored(tmp_path, write_tiny_encoder(tmp_path / "made"))
    settings = given(model={"adapter": tmp_path})
    write_pointer(
        tmp_path, Pointer(digest, "x", "2024-05-06T07:08:09Z", None, "ann", None, "publish")
    )
    assert refused(settings) == []
    write_pointer(
        tmp_path, Pointer("ab" * 32, "x", "2024-05-06T07:08:09Z", None, "ann", None, "publish")
    )
    (problem,) = refused(settings)
    assert "there is no such adapter directory" in problem
    (tmp_path / CURRENT_NAME).write_text("{")
    (problem,) = refused(settings)
    assert CURRENT_NAME in problem
    with pytest.raises(AdapterRefused, match=CURRENT_NAME):
        run_worker(settings)


def test_a_canary_or_shadow_that_would_not_serve_is_noted_and_not_refused(tmp_path: Path) -> None:
    """A worker labels without it, so a restart must not fail because of it."""
    digest = stored(tmp_path, write_tiny_encoder(tmp_path / "made"))
    write_pointer(
        tmp_path, Pointer(digest, "x", "2024-05-06T07:08:09Z", None, "ann", None, "publish")
    )
    write_canary(tmp_path, CanaryPointer("ab" * 32, "y", 0.1, "2024-05-06T07:08:09Z", "ann", None))
    settings = given(
        model={"adapter": tmp_path},
        adapters={"shadow": "cdef"},
        kafka={"delivery": "at_least_once"},
    )
    assert problems_of(settings) == refused(settings) == []
    canary, shadow = notes(settings, {})
    assert canary.startswith("the canary will not serve: ")
    assert shadow.startswith("the shadow will not serve: ")
    assert "holds 0 adapters whose digest begins cdef" in shadow


def test_a_worker_that_lacks_its_adapter_alone_keeps_the_adapters_exit_code(tmp_path: Path) -> None:
    """Alerts and runbook distinguish the two codes."""
    write_manifest(tmp_path, replace(toy_manifest(), name="toy"))
    with pytest.raises(AdapterRefused, match="needs its base"):
        run_worker(given(model={"adapter": tmp_path}))
    with pytest.raises(SettingsError, match=r"(?s)read its own results.*needs its base"):
        run_worker(given(model={"adapter": tmp_path}, kafka={"output_topic": "support.messages"}))
