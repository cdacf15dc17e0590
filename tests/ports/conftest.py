from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.harness import Arena


@pytest.fixture
def arena(bootstrap_servers: str) -> Iterator[Arena]:
    with ExitStack() as stack:
        yield Arena(bootstrap_servers, stack)
