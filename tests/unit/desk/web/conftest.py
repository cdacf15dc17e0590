"""Browsers at a desk."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import cache, partial

import pytest

from tests.support.desk_browser import NewBrowser, one_loop, open_browser
from tests.support.desk_world import DeskWorld


@pytest.fixture(scope="package", autouse=True)
def one_of_each() -> Iterator[None]:
    """One event loop and one set of trusted certificates for all: a third of a test's time else."""
    with one_loop(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture
def browser(world: DeskWorld) -> NewBrowser:
    return partial(open_browser, world)
