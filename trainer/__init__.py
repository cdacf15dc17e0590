"""The offline trainer: from hand-checked messages to an adapter that carries its own contract."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("filing-clerk")
except PackageNotFoundError:  # running from a checkout that was never installed
    __version__ = "0+unknown"
