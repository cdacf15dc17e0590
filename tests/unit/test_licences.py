"""What is shipped may be shipped: licences are permissive or named, and nothing unknown passes."""

from __future__ import annotations

import pytest

from tests.release.licences import LOCKS, Rules, of_installed

RULES = Rules.read()


def test_every_package_of_the_images_that_is_installed_here_is_allowed() -> None:
    """The CPU images whole, and what the GPU's share with them; a release checks each image's bill
    of materials."""
    found = dict(of_installed(LOCKS))
    assert len(found) > 100
    assert {name: RULES.problem(name, one) for name, one in found.items()} == dict.fromkeys(found)


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        (["GPL-3.0-only"], "neither permissive nor named"),
        (["MIT AND LGPL-2.1-only"], "neither permissive nor named"),
        (["MIT", "GPL-3.0-only"], "neither permissive nor named"),
        ([], "names no licence"),
        (["Mine"], "neither permissive nor named"),
    ],
)
def test_anything_else_fails(licences: list[str], said: str) -> None:
    assert said in str(RULES.problem("stranger", licences))
