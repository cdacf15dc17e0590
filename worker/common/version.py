"""The version of the package, and so of all three programs."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("filing-clerk")
except PackageNotFoundError:  # running from a checkout that was never installed
    __version__ = "0+unknown"
