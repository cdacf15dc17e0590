"""Hypothesis for all unit tests: a busy machine is no failure, so examples have no deadline."""

from hypothesis import settings

# On top of what Hypothesis chose by itself: its "ci" profile where CI is set.
settings.register_profile("unit", parent=settings(), deadline=None)
settings.load_profile("unit")
