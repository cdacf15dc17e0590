"""Groups of things that belong together, by union-find."""

from __future__ import annotations


class Clusters:
    """Disjoint groups of the numbers 0 to ``count`` - 1.

    Path halving and the smaller number as root: a group's name does not depend on the order in
    which its members were joined (Tarjan and van Leeuwen 1984).
    """

    __slots__ = ("_parent",)

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, one: int) -> int:
        """Return the smallest member of the group."""
        parent = self._parent
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    def join(self, one: int, other: int) -> None:
        """Make one group of two."""
        one, other = self.find(one), self.find(other)
        self._parent[max(one, other)] = min(one, other)

    def groups(self) -> list[list[int]]:
        """Return every group, singletons too, by its smallest member, members in order."""
        found: dict[int, list[int]] = {}
        for one in range(len(self._parent)):
            found.setdefault(self.find(one), []).append(one)
        return list(found.values())
