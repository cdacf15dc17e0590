"""Upper bounds of the histograms' buckets: probabilities first, then seconds."""

from __future__ import annotations

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MASSES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

# Milliseconds to minutes: the engine, and what waits for it.
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SHORT_DURATIONS = (0.0001, 0.0005, 0.001, 0.0025, *DURATIONS)
LOAD_DURATIONS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# A backlog makes records hours old.
AGES = (*DURATIONS[1:], 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)
