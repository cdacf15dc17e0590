"""What can go wrong at the desk, named for what the caller does about it.

DeskError
├── Refused               tell the person: what they asked for cannot be done, and why
│   ├── ClaimLost         ... somebody else has the item now, or has decided it
│   ├── NotAllowed        ... their role does not let them
│   └── NothingToUndo     ... there is no decision of theirs that can be taken back
├── TryAgain              nothing is half done: wait a moment, do the same again
│   ├── DatabaseAway      ... the database cannot be reached
│   ├── KafkaAway         ... Kafka cannot be reached, or has not answered
│   └── Superseded        ... another process does this work now
└── DeskStopped           leave the process with ``exit_code``
    ├── SettingsError     2  mend the settings
    ├── DatabaseRefused   3  the database is not the desk's, or of another version
    └── StreamFailed      4  Kafka refuses to go on: topics, rights
"""

from __future__ import annotations

EXIT_UNEXPECTED = 1
EXIT_SETTINGS = 2
EXIT_DATABASE = 3
EXIT_STREAM = 4
EXIT_INTERRUPTED = 130


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


class TryAgain(DeskError):
    """Nothing was half done; the same can be done again after a moment."""


class DatabaseAway(TryAgain):
    """The database cannot be reached, or ended the connection."""


class KafkaAway(TryAgain):
    """Kafka cannot be reached, or has not said whether a transaction was committed."""


class Superseded(TryAgain):
    """Another process of this desk has taken this work over."""


class DeskStopped(DeskError):
    """The desk must end."""

    exit_code = EXIT_UNEXPECTED


class SettingsError(DeskStopped):
    """A setting is wrong; the message says which, where it came from and how to mend it."""

    exit_code = EXIT_SETTINGS


class DatabaseRefused(DeskStopped):
    """The database cannot be used: its schema is another version's, or it is no desk's."""

    exit_code = EXIT_DATABASE


class StreamFailed(DeskStopped):
    """Kafka cannot be used as configured."""

    exit_code = EXIT_STREAM
