"""Browsers at a desk."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.desk_browser import NewBrowser, open_browser
from tests.support.desk_world import DeskWorld


@pytest.fixture
def browser(world: DeskWorld) -> NewBrowser:
    return partial(open_browser, world)
