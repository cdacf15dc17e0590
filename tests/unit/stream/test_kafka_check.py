"""What the client library refuses is told before anything slow begins, and with its setting."""

import time
from typing import Any

import pytest

from tests.support.policies import make_kafka_config
from worker.app import run_worker
from worker.engine.open import OpenedEngine
from worker.errors import SettingsError
from worker.settings import Settings
from worker.stream.kafka_check import check_clients

NOWHERE = "127.0.0.1:1"


def check(**changes: Any) -> None:
    check_clients(make_kafka_config(**{"bootstrap_servers": NOWHERE, **changes}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"producer": {"linger.msx": 1}}, r"^kafka\.producer\.linger\.msx: .*No such config"),
        ({"consumer": {"fetch.min.byte": 1}}, r"^kafka\.consumer\.fetch\.min\.byte: .*No such"),
        ({"client": {"socket.timeout": 1}}, r"^kafka\.client\.socket\.timeout: .*No such"),
        # The client knows this one by another name, and says that.
        ({"producer": {"linger.ms": "soon"}}, r"^kafka\.producer\.linger\.ms: .*Invalid value"),
        ({"consumer": {"stats_every": True}}, r"^kafka\.consumer\.stats_every: "),
        ({"consumer": {"on_commit": "x"}}, r"^kafka\.consumer\.on_commit: .*callable"),
        # Right alone and wrong together.
        (
            {"consumer": {"session.timeout.ms": 400_000}},
            r"^kafka\.consumer\.session\.timeout\.ms: .*max\.poll\.interval\.ms",
        ),
        (
            {"security": {"security.protocol": "ssl", "ssl.ca.location": "/nowhere/ca.pem"}},
            r"^kafka\.ssl_ca_location: .*ssl\.ca\.location failed",
        ),
    ],
)
def test_a_property_that_the_client_refuses_is_named_by_its_setting(
    changes: dict[str, Any], says: str
) -> None:
    """One line, with the library's own reason."""
    with pytest.raises(SettingsError, match=says) as caught:
        check(**changes)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_secret_is_not_repeated() -> None:
    """Also where something is wrong beside it."""
    security = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"}
    with pytest.raises(SettingsError, match=r"sasl\.username and sasl\.password") as caught:
        check(security={**security, "sasl.password": "hush-hush"})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("consumer", [{}, {"group.protocol": "consumer"}])
def test_good_properties_pass_without_a_broker(delivery: str, consumer: dict[str, Any]) -> None:
    """Nothing is waited for: the cluster is looked for later."""
    started = time.monotonic()
    check(delivery=delivery, consumer=consumer, client={"socket.keepalive.enable": True})
    assert time.monotonic() - started < 5


def test_a_worker_finds_out_before_its_model_is_loaded() -> None:
    """The model takes minutes, and its figures would be thrown away for a typing error."""

    def load(_: Settings) -> OpenedEngine:
        pytest.fail("the model was loaded first")

    kafka = {"bootstrap_servers": NOWHERE, "producer": {"linger.msx": 1}}
    settings = Settings.model_validate({"kafka": kafka, "http": {"port": 0}})
    with pytest.raises(SettingsError, match=r"^kafka\.producer\.linger\.msx: "):
        run_worker(settings, load)


def test_that_nobody_is_there_yet_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """The clients begin to connect behind our back; the cluster is looked for later, and by us."""
    for _ in range(20):
        check()
        time.sleep(0.01)
    assert caplog.records == []
