"""Tokens for OAUTHBEARER from a function of the user's own, named in the settings.

    def token(config: str) -> tuple[str, float]: ...

It is given the property ``sasl.oauthbearer.config``, returns a token and when that expires (Unix
seconds), and may add the principal and a dictionary of SASL extensions: the client's ``oauth_cb``.
The client calls it when it starts and again before a token expires, each client for itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

import structlog

from worker.errors import SettingsError, StreamFailed

_log = structlog.get_logger("worker.stream")
_SETTING = "kafka.sasl_token_callback"


class TokenCallback:
    """A user's function, found and held to what it must return. Called, it is ``oauth_cb``."""

    def __init__(self, name: str, function: Callable[[str], object]) -> None:
        self._name = name
        self._function = function

    def __call__(self, config: str) -> object:
        """Return a token; log it where there is none, for the client says little of it."""
        try:
            return self.token(config)
        except (RuntimeError, TypeError) as error:
            _log.error("stream.no_token", error=str(error))
            raise

    def token(self, config: str) -> object:
        """Return what the function returns. Raises RuntimeError or TypeError.

        What goes wrong in it is told by the kind of its error alone: its words may hold a secret.
        """
        try:
            given = self._function(config)
        except Exception as error:  # noqa: BLE001 - whatever a function of the user's raises
            raise RuntimeError(f"{self._name} raised {type(error).__name__}") from None
        if not _is_token(given):
            raise TypeError(f"{self._name} must return (token, expiry in Unix seconds, ...)")
        return given


def token_callback(name: str) -> TokenCallback:
    """Return the function that ``name`` (module:function) stands for. Raises SettingsError."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(
            f"{_SETTING}: {module_name!r} cannot be imported (no {error.name}): put its folder on "
            "PYTHONPATH"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SettingsError(f"{_SETTING}: {module_name} has no function {function_name!r}")
    return TokenCallback(name, function)


def require_token(properties: Mapping[str, object]) -> None:
    """Ask for a token, where a function gives them. Raises StreamFailed where it gives none.

    A client that is made without one says, after ten seconds, no more than that.
    """
    callback = properties.get("oauth_cb")
    if not isinstance(callback, TokenCallback):
        return
    try:
        callback.token(str(properties.get("sasl.oauthbearer.config", "")))
    except (RuntimeError, TypeError) as error:
        raise StreamFailed(
            f"no token for {properties['bootstrap.servers']}: {error}; check {_SETTING} and what "
            "it asks for one"
        ) from None


def _is_token(given: object) -> bool:
    return (
        isinstance(given, tuple)
        and 2 <= len(given) <= 4
        and isinstance(given[0], str)
        and isinstance(given[1], int | float)
    )
