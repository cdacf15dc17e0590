"""Token callbacks: imported by name, and their errors' text is not shown."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from desk.app import kafka_security
from desk.errors import SettingsError as DeskSettingsError
from desk.settings import KafkaSettings as DeskKafkaSettings
from tests.support.unsigned_token import SECRET, token
from worker.common.kafka import TokenCallback, find_token_callback, require_token
from worker.errors import SettingsError, StreamFailed
from worker.policies import kafka_config
from worker.settings import KafkaSettings

MODULE = "tests.support.unsigned_token"


def token_callback(name: str, mechanism: str = "OAUTHBEARER") -> TokenCallback:
    """The function of this name, without reports."""
    return find_token_callback(name, mechanism, lambda why: None, SettingsError)


def test_it_is_called_with_the_clients_property() -> None:
    given = token_callback(f"{MODULE}:token")("scope=x")
    assert isinstance(given, tuple)
    assert given[0].count(".") == token("")[0].count(".") == 2
    assert given[1] > 1.7e9


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tests.support.nowhere:token", "cannot be imported"),
        (f"{MODULE}:nothing", "has no function 'nothing'"),
        (f"{MODULE}:SECRET", "has no function 'SECRET'"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_at_once(name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=rf"^kafka\.sasl_token_callback: .*{said}"):
        token_callback(name)


def test_the_token_services_errors_are_not_quoted() -> None:
    """It may contain the secret of the token request."""
    asked = KafkaSettings(sasl_mechanism="OAUTHBEARER", sasl_token_callback=f"{MODULE}:broken")
    callback = kafka_config(asked).common["oauth_cb"]
    assert isinstance(callback, TokenCallback)
    with capture_logs() as logs, pytest.raises(RuntimeError) as caught:
        callback("")
    assert str(caught.value) == f"{MODULE}:broken raised OSError"
    assert caught.value.__suppress_context__
    assert SECRET not in str(logs)
    assert logs[0]["event"] == "stream.no_token"


def test_without_a_token_no_client_is_made() -> None:
    """The client would wait for ten seconds and not say why."""
    servers = {"bootstrap.servers": "kafka:9093"}
    require_token(servers, StreamFailed)
    require_token({**servers, "oauth_cb": token_callback(f"{MODULE}:token")}, StreamFailed)
    with pytest.raises(
        StreamFailed, match=r"^no token for kafka:9093: .*raised OSError; check kaf"
    ):
        require_token({**servers, "oauth_cb": token_callback(f"{MODULE}:broken")}, StreamFailed)


def test_the_desk_asks_the_same_function() -> None:
    given = {"security_protocol": "sasl_ssl", "sasl_mechanism": "OAUTHBEARER"}
    good = DeskKafkaSettings(**given, sasl_token_callback=f"{MODULE}:token")
    callback = kafka_security(good)["oauth_cb"]
    assert isinstance(callback, TokenCallback)
    assert isinstance(callback(""), tuple)
    broken = DeskKafkaSettings(**given, sasl_token_callback=f"{MODULE}:broken")
    failing = kafka_security(broken)["oauth_cb"]
    assert isinstance(failing, TokenCallback)
    with capture_logs() as logs, pytest.raises(RuntimeError):
        failing("")
    assert logs[0]["event"] == "stream.no_token"
    assert SECRET not in str(logs)
    password = DeskKafkaSettings(**given | {"sasl_mechanism": "PLAIN"},
                                 sasl_token_callback=f"{MODULE}:token")  # fmt: skip
    with pytest.raises(DeskSettingsError, match="set it to OAUTHBEARER"):
        kafka_security(password)
