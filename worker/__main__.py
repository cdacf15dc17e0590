"""``python -m worker``: the same as ``clerk-worker``."""

from worker.cli import main

main()
