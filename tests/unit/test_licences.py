"""What is shipped may be shipped: licences are permissive or named, and nothing unknown passes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.release.licences import LOCKS, Rules, main, of_installed, of_sbom

RULES = Rules.read()


def test_every_package_of_the_images_that_is_installed_here_is_allowed() -> None:
    """The CPU images whole, and what the GPU's share with them; a release checks each image's bill
    of materials."""
    found = dict(of_installed(LOCKS))
    assert len(found) > 100
    assert {name: RULES.problem(name, one) for name, one in found.items()} == dict.fromkeys(found)


@pytest.mark.parametrize(
    "licence",
    [
        "MIT",
        "Apache-2.0 AND (MIT OR GPL-3.0-only)",
        "Apache-2.0 WITH LLVM-exception",
        "BSD License",
    ],
)
def test_permissive_licences_need_no_word(licence: str) -> None:
    assert RULES.problem("anything", [licence]) is None


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        (["GPL-3.0-only"], "neither permissive nor named"),
        (["MIT AND LGPL-2.1-only"], "neither permissive nor named"),
        (["MIT", "GPL-3.0-only"], "neither permissive nor named"),
        ([], "says nothing"),
        (["Mine"], "neither permissive nor named"),
    ],
)
def test_anything_else_fails(licences: list[str], said: str) -> None:
    assert said in str(RULES.problem("stranger", licences))


def test_a_named_package_that_changes_its_licence_fails() -> None:
    assert RULES.problem("pycountry", ["LGPL-2.1-only"]) is None
    assert "when it was looked at" in str(RULES.problem("pycountry", ["AGPL-3.0-only"]))
    assert RULES.problem("nvidia-ml-py", ["BSD License"]) is None
    assert "when it was looked at" in str(RULES.problem("nvidia-cublas", ["Other"]))


def test_the_list_gives_a_reason_for_each(tmp_path: Path) -> None:
    path = tmp_path / "licences.toml"
    path.write_text('permissive = []\n[named.one]\nlicence = ["GPL"]\n')
    with pytest.raises(ValueError, match="one has no reason"):
        Rules.read(path)


def test_a_bill_of_materials_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As cyclonedx-py writes them: identifiers, classifiers, expressions, whole texts."""
    components = [
        {"name": "one", "licenses": [{"license": {"id": "MIT"}}]},
        {"name": "Two_2", "licenses": [{"expression": "GPL-3.0-only"}]},
        {
            "name": "three",
            "licenses": [
                {"license": {"name": "License :: OSI Approved :: BSD License"}},
                {"license": {"name": "declared license of 'three'", "text": {"content": "..."}}},
            ],
        },
        {"name": "four"},
    ]
    path = tmp_path / "sbom.json"
    path.write_text(json.dumps({"components": components}))
    found = [
        ("one", ["MIT"]),
        ("two-2", ["GPL-3.0-only"]),
        ("three", ["BSD License"]),
        ("four", []),
    ]
    assert list(of_sbom(path)) == found
    assert main([str(path)]) == 1
    printed = capsys.readouterr().out
    assert "two-2:" in printed
    assert "four: says nothing" in printed
    assert "4 packages, 2 to be looked at" in printed
