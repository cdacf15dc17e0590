"""``clerk-trainer``: from a messy export to an adapter worth deploying."""

from trainer.cli.main import main

__all__ = ["main"]
