"""filing-clerk's worker: support messages in from Kafka, one label of a fixed set out."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("filing-clerk")  # of the desk and the trainer as well
except PackageNotFoundError:  # running from a checkout that was never installed
    __version__ = "0+unknown"
