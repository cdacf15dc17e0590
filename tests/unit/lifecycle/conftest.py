"""The fixture of most tests in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.follower import WIDE, AdapterStore, Follower
from tests.support.rig import Rig
from tests.support.toy_adapter import ONE


@pytest.fixture
def follower(tmp_path: Path) -> Follower:
    """A loop with one partition and a store in which ``ONE`` is current."""
    made = Follower(AdapterStore(tmp_path), ONE, rig=Rig(policy=WIDE))
    made.rig.stream.assign(0)
    return made
