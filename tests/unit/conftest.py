"""Hypothesis and threads for all unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

# On top of what Hypothesis chose by itself: its "ci" profile where CI is set. A busy machine is
# no failure, so examples have no deadline.
settings.register_profile("unit", parent=settings(), deadline=None)
settings.load_profile("unit")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, here and in processes that a test starts.

    Matrices are tiny here: threads that wait for each other at every one of them cost up to ten
    times the computation, and the other cores have tests of their own to run.
    """
    with threadpool_limits(1), pytest.MonkeyPatch.context() as patched:
        for name in THREADS:
            patched.setenv(name, "1")
        yield
