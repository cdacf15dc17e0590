"""An adapter to verify, whole until a test damages it."""

from pathlib import Path

import pytest

from tests.support.published import Published, publish


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return publish(tmp_path)
