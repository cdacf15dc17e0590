"""``python -m desk``: the same as ``clerk-desk``."""

from desk.cli import main

main()
