"""A store and datasets to propose in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.propose_world import Make, Place, make_place


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_encoder: Path,
    taxonomy_file: Path,
    make_messages: Make,
) -> Place:
    """Return a place of frozen embeddings, the quickest."""
    root = tmp_path_factory.mktemp("circle")
    return make_place(root, "embedding-linear", tiny_encoder, taxonomy_file, make_messages)
