"""Logging in to Kafka: librdkafka's properties from the settings, and tokens for OAUTHBEARER.

A token comes from the user's own function, named in the settings:

    def token(config: str) -> tuple[str, float]: ...

It gets the property ``sasl.oauthbearer.config`` and returns a token and its expiry (Unix seconds);
it may add the principal and a dictionary of SASL extensions, as for the client's ``oauth_cb``. Each
client calls it at start-up and again before a token expires.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr

from worker.common.settings import Properties, Section, read_secret

SETTING = "kafka.sasl_token_callback"


class ConnectionSettings(Section):
    """The cluster's address and login: the common part of every program's section ``kafka``.

    From ``security_protocol`` on, except for ``_NOT_PLAIN``, a name with dots instead of
    underscores is librdkafka's property.
    """

    bootstrap_servers: str = Field("localhost:9092", description="host:port[,host:port...]")
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="Encryption and authentication towards the brokers."
    )
    ssl_ca_location: str | None = Field(None, description="PEM file with the CA certificates.")
    ssl_certificate_location: str | None = Field(
        None, description="PEM file with the client's certificate, for mutual TLS."
    )
    ssl_key_location: str | None = Field(
        None, description="PEM file with the client's private key, for mutual TLS."
    )
    ssl_key_password: SecretStr | None = Field(None, description="Password of the private key.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = (
        Field(None, description="SASL mechanism.")
    )
    sasl_username: str | None = Field(None, description="SASL user name.")
    sasl_password: SecretStr | None = Field(
        None, description="SASL password; preferably set in the environment or as a file."
    )
    sasl_password_file: Path | None = Field(
        None, description="File with the SASL password: a mounted secret."
    )
    sasl_token_callback: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function that returns a token and its expiry, for OAUTHBEARER.",
    )
    client: Properties = Field({}, description="librdkafka properties for all clients.")
    consumer: Properties = Field({}, description="librdkafka properties for consumers.")
    producer: Properties = Field({}, description="librdkafka properties for the producer.")
    registry: Properties = Field(
        {},
        description="Schema Registry: its url and other properties of confluent-kafka's client; "
        "empty: none.",
    )


_NOT_PLAIN = {"sasl_password_file", "sasl_token_callback"}
_LOGIN = [
    name
    for name in ConnectionSettings.model_fields
    if name.startswith(("security_", "ssl_", "sasl_")) and name not in _NOT_PLAIN
]


def login_properties(
    kafka: ConnectionSettings, report: Callable[[str], None], error: Callable[[str], Exception]
) -> dict[str, Any]:
    """Return librdkafka's properties for logging in. ``report`` gets the reason if a token callback
    fails. Raises ``error``."""
    given: dict[str, Any] = {name: getattr(kafka, name) for name in _LOGIN}
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in given.items()
    }
    plain["sasl_password"] = read_secret(
        "kafka.sasl_password", plain["sasl_password"], kafka.sasl_password_file, error
    )
    found = {name.replace("_", "."): value for name, value in plain.items() if value}
    if kafka.sasl_token_callback is not None:
        # The only property that is a function.
        found["oauth_cb"] = find_token_callback(
            kafka.sasl_token_callback, kafka.sasl_mechanism, report, error
        )
    return found


class TokenCallback:
    """A user's function with its result checked, for ``oauth_cb``. ``report`` gets the reason if
    there is no token, because the client itself logs little about it."""

    def __init__(
        self, name: str, function: Callable[[str], object], report: Callable[[str], None]
    ) -> None:
        self._name = name
        self._function = function
        self._report = report

    def __call__(self, config: str) -> object:
        """Return a token, or report the problem and raise it."""
        try:
            return self.token(config)
        except (RuntimeError, TypeError) as error:
            self._report(str(error))
            raise

    def token(self, config: str) -> object:
        """Return the function's checked result. Raises RuntimeError or TypeError, with only the
        type of an error in the function: its text may contain a secret."""
        try:
            given = self._function(config)
        except Exception as error:  # noqa: BLE001 - whatever a function of the user's raises
            raise RuntimeError(f"{self._name} raised {type(error).__name__}") from None
        if not _is_token(given):
            raise TypeError(f"{self._name} must return (token, expiry in Unix seconds, ...)")
        return given


def find_token_callback(
    name: str,
    mechanism: str | None,
    report: Callable[[str], None],
    error: Callable[[str], Exception],
) -> TokenCallback:
    """Import the function ``name`` (module:function). Raises ``error`` if that fails, or if
    ``mechanism`` does not use tokens."""
    if mechanism != "OAUTHBEARER":
        raise error(
            f"{SETTING} is set, but kafka.sasl_mechanism is {mechanism}: set it to OAUTHBEARER"
        )
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as problem:
        raise error(
            f"{SETTING}: {module_name!r} cannot be imported (no {problem.name}): put its folder on "
            "PYTHONPATH"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise error(f"{SETTING}: {module_name} has no function {function_name!r}")
    return TokenCallback(name, function, report)


def require_token(properties: Mapping[str, object], error: Callable[[str], Exception]) -> None:
    """Call the token callback, if any. Raises ``error`` if it fails: a client without a token only
    reports a timeout, after ten seconds."""
    callback = properties.get("oauth_cb")
    if not isinstance(callback, TokenCallback):
        return
    try:
        callback.token(str(properties.get("sasl.oauthbearer.config", "")))
    except (RuntimeError, TypeError) as problem:
        raise error(
            f"no token for {properties['bootstrap.servers']}: {problem}; check {SETTING} and its "
            "token service"
        ) from None


def _is_token(given: object) -> bool:
    return (
        isinstance(given, tuple)
        and 2 <= len(given) <= 4
        and isinstance(given[0], str)
        and isinstance(given[1], int | float)
    )
