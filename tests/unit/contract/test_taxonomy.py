"""The label set: read strictly, and identified by a digest."""

from pathlib import Path

import pytest

from tests.support.toy_adapter import toy_taxonomy
from worker.contract import Label, Taxonomy, TaxonomyError

GOOD = {"name": "t", "version": "1", "labels": [{"name": "a"}, {"name": "b"}]}


def test_labels_keep_their_order() -> None:
    assert Taxonomy.from_dict(GOOD).names == ("a", "b")
    assert Taxonomy.from_dict(toy_taxonomy().to_dict()) == toy_taxonomy()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [{"name": "a"}]}, "has 1 labels; two or more"),
        ({"labels": [{"name": "a"}, {"name": "a"}]}, "names the label 'a' twice"),
        ({"labels": [{"name": "a"}, {"name": " b"}]}, "no blanks at either end"),
        ({"labels": [{"name": "a"}, {"name": ""}]}, "1 to 100 printable"),
        ({"labels": [{"name": "a"}, {"name": "b" * 101}]}, "1 to 100 printable"),
        ({"labels": [{"name": "a"}, {"name": "None"}]}, "'None', which means that no label fits"),
        ({"version": ""}, "needs a 'name' and a 'version'"),
        ({"lables": []}, r"unknown keys \['lables'\]"),
    ],
)
def test_a_malformed_taxonomy_is_refused_with_the_entry_at_fault(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(TaxonomyError, match=message):
        Taxonomy.from_dict({**GOOD, **change})


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.toml"
    with pytest.raises(TaxonomyError, match=r"taxonomy\.toml: cannot read"):
        Taxonomy.from_toml(path)
    for content in (b"name = ", b"\xff", b'name = "x"'):
        path.write_bytes(content)
        with pytest.raises(TaxonomyError, match=r"taxonomy\.toml"):
            Taxonomy.from_toml(path)


def test_the_shipped_taxonomy_is_one() -> None:
    path = Path(__file__).parents[3] / "config" / "taxonomy.toml"
    assert len(Taxonomy.from_toml(path).names) == 11


def test_the_digest_is_stable_and_moves_with_every_part() -> None:
    taxonomy = toy_taxonomy()
    assert taxonomy.digest == "c744e49882add9b1ef64372591c9cb81ea4c52ae274dc6afc6b5f0c83e2fa625"
    assert taxonomy.digest == toy_taxonomy().digest
    labels = taxonomy.labels
    others = [
        Taxonomy("other", taxonomy.version, taxonomy.description, labels),
        Taxonomy(taxonomy.name, "2", taxonomy.description, labels),
        Taxonomy(taxonomy.name, taxonomy.version, "words", labels),
        Taxonomy(taxonomy.name, taxonomy.version, taxonomy.description, labels[::-1]),
        Taxonomy(
            taxonomy.name,
            taxonomy.version,
            taxonomy.description,
            (*labels[:-1], Label("other", "x")),
        ),
    ]
    assert len({taxonomy.digest, *(other.digest for other in others)}) == 6


@pytest.mark.parametrize(
    "twin",
    [("Unknown", "unknown"), ("R\u00e9clamation", "Re\u0301clamation"), ("Straße", "STRASSE")],
)
def test_labels_that_look_alike_are_refused(twin: tuple[str, str]) -> None:
    """A human could not tell which one an export means."""
    labels = [{"name": twin[0]}, {"name": "other"}, {"name": twin[1]}]
    with pytest.raises(TaxonomyError, match="differ only in case or Unicode form"):
        Taxonomy.from_dict({**GOOD, "labels": labels})


def test_a_file_gives_composed_names(tmp_path: Path) -> None:
    """Some systems write letters and their accents as separate characters."""
    path = tmp_path / "taxonomy.toml"
    text = 'name = "t"\nversion = "1"\n[[labels]]\nname = "Re\u0301clamation"\n'
    path.write_text(text + '[[labels]]\nname = "b"\n', encoding="utf-8")
    assert Taxonomy.from_toml(path).names == ("R\u00e9clamation", "b")
