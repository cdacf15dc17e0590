"""What can go wrong at the desk, named for what the caller does about it.

DeskError
├── Refused               tell the person: what they asked for cannot be done, and why
│   ├── ClaimLost         ... somebody else has the item now, or has decided it
│   ├── NotAllowed        ... their role does not let them
│   ├── NothingToUndo     ... there is no decision of theirs that can be taken back
│   └── SignInFailed      ... they could not be signed in
├── TryAgain              nothing is half done: wait a moment, do the same again
│   ├── DatabaseAway      ... the database cannot be reached
│   ├── KafkaAway         ... Kafka cannot be reached, or has not answered
│   ├── ProviderAway      ... the OpenID provider does not answer
│   └── Superseded        ... another process does this work now
├── ProviderWrong         the OpenID provider, or the desk's registration with it, wants fixing
└── DeskStopped           leave the process with ``exit_code``
    ├── SettingsError     2  fix the settings
    ├── DatabaseRefused   3  the database is not the desk's, or of another version
    └── StreamFailed      4  Kafka refuses to go on: topics, rights
"""

from __future__ import annotations

from worker.common.errors import EXIT_SETTINGS, EXIT_UNEXPECTED

EXIT_DATABASE = 3
EXIT_STREAM = 4


class DeskError(Exception):
    """Base of every error the desk raises on purpose. No text of a message is in any of them."""


class Refused(DeskError):
    """What a person asked for cannot be done; the words are for them."""


class ClaimLost(Refused):
    """The item is not this person's to decide: the claim ran out, or somebody else was quicker."""


class NotAllowed(Refused):
    """The person's role does not let them."""


class NothingToUndo(Refused):
    """There is no decision of this person that can still be taken back."""


class SignInFailed(Refused):
    """A person could not be signed in. ``reason`` says why in a word: state, issuer, denied, code,
    token, role; ``name`` is the person's where they are known and have no role."""

    def __init__(self, reason: str, words: str, *, name: str = "") -> None:
        super().__init__(words)
        self.reason = reason
        self.name = name


class TryAgain(DeskError):
    """Nothing was half done; the same can be done again after a moment."""


class DatabaseAway(TryAgain):
    """The database cannot be reached, or ended the connection."""


class KafkaAway(TryAgain):
    """Kafka cannot be reached, or has not said whether a transaction was committed."""


class ProviderAway(TryAgain):
    """The OpenID provider cannot be reached, or says that something is wrong there."""


class Superseded(TryAgain):
    """Another process of this desk has taken this work over."""


class ProviderWrong(DeskError):
    """The OpenID provider's answer cannot be used; the words are for the operator."""


class DeskStopped(DeskError):
    """The desk must end."""

    exit_code = EXIT_UNEXPECTED


class SettingsError(DeskStopped):
    """A setting is wrong; the message says which, where it came from and how to fix it."""

    exit_code = EXIT_SETTINGS


class DatabaseRefused(DeskStopped):
    """The database cannot be used: its schema is another version's, or it is no desk's."""

    exit_code = EXIT_DATABASE


class StreamFailed(DeskStopped):
    """Kafka cannot be used as configured."""

    exit_code = EXIT_STREAM
