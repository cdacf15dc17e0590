"""The desk's errors, named for what the caller does about them.

DeskError
├── Refused               show the message to the user: the request cannot be done
│   ├── ClaimLost         ... someone else holds the item, or has decided it
│   ├── NotAllowed        ... the user's role does not allow it
│   ├── NothingToUndo     ... the user has no decision that can be undone
│   └── SignInFailed      ... the user could not be signed in
├── TryAgain              nothing is half done: wait a moment, then do the same again
│   ├── DatabaseAway      ... the database is unavailable
│   ├── KafkaAway         ... Kafka is unavailable, or did not answer
│   ├── ProviderAway      ... the OpenID provider does not answer
│   └── Superseded        ... another process does this work now
├── ProviderWrong         fix the OpenID provider, or the desk's registration with it
└── DeskStopped           leave the process with ``exit_code``
    ├── SettingsError     2  fix the settings
    ├── DatabaseRefused   3  the database is not a desk's, or has another version
    └── StreamFailed      4  Kafka cannot be used: topics, rights
"""

from __future__ import annotations

from worker.common.errors import EXIT_SETTINGS, EXIT_UNEXPECTED

EXIT_DATABASE = 3
EXIT_STREAM = 4


class DeskError(Exception):
    """Base of every error that the desk raises. None contains a message's text."""


class Refused(DeskError):
    """The request cannot be done; the message is for the user."""


class ClaimLost(Refused):
    """The user does not hold the item: the claim expired, or someone else has decided it."""


class NotAllowed(Refused):
    """The user's role does not allow it."""


class NothingToUndo(Refused):
    """The user has no decision that can be undone."""


class SignInFailed(Refused):
    """A user could not be signed in. ``reason`` is one word: state, issuer, denied, code, token,
    role. ``name`` is set if the user is known and has no role."""

    def __init__(self, reason: str, words: str, *, name: str = "") -> None:
        super().__init__(words)
        self.reason = reason
        self.name = name


class TryAgain(DeskError):
    """Nothing was half done; the same call can be repeated after a moment."""


class DatabaseAway(TryAgain):
    """The database is unavailable, or closed the connection."""


class KafkaAway(TryAgain):
    """Kafka is unavailable, or did not say whether a transaction was committed."""


class ProviderAway(TryAgain):
    """The OpenID provider is unavailable, or reports an error on its side."""


class Superseded(TryAgain):
    """Another process of this desk does this work now."""


class ProviderWrong(DeskError):
    """The OpenID provider's answer cannot be used; the message is for the operator."""


class DeskStopped(DeskError):
    """The desk must end."""

    exit_code = EXIT_UNEXPECTED


class SettingsError(DeskStopped):
    """A setting is wrong; the message says which, where it came from and how to fix it."""

    exit_code = EXIT_SETTINGS


class DatabaseRefused(DeskStopped):
    """The database cannot be used: it has another version's schema, or is not a desk's."""

    exit_code = EXIT_DATABASE


class StreamFailed(DeskStopped):
    """Kafka cannot be used as configured."""

    exit_code = EXIT_STREAM
