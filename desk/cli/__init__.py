"""The command line: ``clerk-desk``."""

from desk.cli.main import main

__all__ = ["main"]
