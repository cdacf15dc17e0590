"""A new taxonomy: which decisions are carried over, and which are opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.contract.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class TaxonomyChange:
    """What becomes of decisions: ``carried`` maps an old label to a new one, those of ``reopened``
    labels are made again. ``reopen_none``: so are those that said no label fits, where the new
    taxonomy has a label that the old one had not."""

    carried: Mapping[str, str]
    reopened: tuple[str, ...]
    reopen_none: bool


def plan_change(old: Taxonomy, new: Taxonomy, mapping: Mapping[str, str]) -> TaxonomyChange:
    """Plan the change. A label that keeps its name and its description is carried over by itself;
    ``mapping`` says it of others, old to new; what is left is opened again.

    Raises ValueError for a mapping that names a label which is not there.
    """
    unknown_old = sorted(set(mapping) - set(old.names))
    unknown_new = sorted(set(mapping.values()) - set(new.names))
    if unknown_old:
        raise ValueError(f"the old taxonomy has no label {unknown_old[0]!r}: {list(old.names)}")
    if unknown_new:
        raise ValueError(f"the new taxonomy has no label {unknown_new[0]!r}: {list(new.names)}")
    described = {label.name: label.description for label in new.labels}
    carried = {
        label.name: label.name
        for label in old.labels
        if described.get(label.name) == label.description
    } | dict(mapping)
    reopened = tuple(name for name in old.names if name not in carried)
    added = set(new.names) - set(old.names) - set(mapping.values())
    return TaxonomyChange(carried, reopened, bool(added))
