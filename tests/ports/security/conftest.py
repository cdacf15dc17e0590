"""One secured broker, and a new desk for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.secure_broker import SecureBroker, secure_broker
from tests.support.secure_desk import Desk


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    with secure_broker(tmp_path_factory.mktemp("certificates")) as running:
        yield running


@pytest.fixture
def desk(kafka: SecureBroker, tmp_path: Path) -> Desk:
    return Desk(kafka, tmp_path)
