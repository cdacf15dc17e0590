"""The command line: ``clerk-worker``."""

from worker.cli.main import main

__all__ = ["main"]
