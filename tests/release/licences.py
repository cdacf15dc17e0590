"""Is everything that is shipped under a licence that allows it? Anything that is not plainly
permissive is named, with its reason, in locks/licences.toml; what nobody has checked fails.

    python -m tests.release.licences build/metadata-worker.json   # a release's image (make sbom)
    python -m tests.release.licences                               # what is installed, of the locks
"""

from __future__ import annotations

import fnmatch
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RULES = ROOT / "locks" / "licences.toml"
LOCKS = (
    "image-cpu.txt",
    "image-gpu.txt",
    "image-encoder.txt",
    "image-ray.txt",
    "image-desk.txt",
    "image-trainer.txt",
    "image-demo.txt",
)


@dataclass(frozen=True, slots=True)
class Rules:
    """Licences that are allowed (lower case), and packages that were checked by hand: a name's
    pattern to their statement."""

    permissive: frozenset[str]
    named: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, path: Path = RULES) -> Rules:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, entry in data["named"].items():
            if not entry.get("why"):
                raise ValueError(f"{path}: {name} has no reason")
        return cls(
            frozenset(one.lower() for one in data["permissive"]),
            {name: entry["licence"] for name, entry in data["named"].items()},
        )

    def problem(self, name: str, licences: Iterable[str]) -> str | None:
        """The problem with a package's licences (each an SPDX expression or a name), or None."""
        licences = sorted(set(licences))
        if licences and all(self._allows(one) for one in licences):
            return None
        found = " and ".join(licences)
        pattern = next((one for one in self.named if fnmatch.fnmatchcase(name, one)), None)
        if pattern is not None:
            known = self.named[pattern]
            return None if found in known else f"was {known} when it was checked, is {found!r}"
        if not found:
            return "names no licence"
        return f"{found!r} is neither permissive nor named"

    def _allows(self, expression: str) -> bool:
        """For an SPDX expression: every part of an AND, one part of an OR."""
        text = expression.strip().lower()
        if text in self.permissive:
            return True
        bare = text.replace("(", " ").replace(")", " ")
        for word, enough in ((" and ", all), (" or ", any)):
            if word in bare:
                return enough(self._allows(part) for part in bare.split(word))
        return bare.partition(" with ")[0].strip() in self.permissive


def of_installed(locks: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield installed packages of lock files with their licences."""
    names = set()
    for lock in locks:
        text = (ROOT / "locks" / lock).read_text(encoding="utf-8")
        names |= set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
    for name in sorted(names):
        try:
            found = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        yield name, list(_declared(found))


def _declared(found: Any) -> Iterator[str]:
    """Yield a package's expression, else its classifiers, else its own words."""
    if expression := found.get("License-Expression"):
        yield expression
        return
    classifiers = [
        one.rpartition(" :: ")[2]
        for one in found.get_all("Classifier") or []
        if one.startswith("License :: ")
    ]
    classifiers = [one for one in classifiers if one not in {"OSI Approved", "DFSG approved"}]
    yield from classifiers
    words = (found.get("License") or "").strip().partition("\n")[0]
    if not classifiers and words:
        yield words


def of_image(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the packages of an image with their licences, from what ``make sbom`` wrote: the
    metadata of its own Python. A bill of materials leaves out licences without an SPDX name."""
    for found in json.loads(path.read_text(encoding="utf-8")):
        message = Message()
        for name in ("License-Expression", "License"):
            if value := found.get(name.lower().replace("-", "_")):
                message[name] = value
        for value in found.get("classifier", []):
            message["Classifier"] = value
        if found["name"] != "filing-clerk":
            yield found["name"].lower().replace("_", "-"), list(_declared(message))


def main(arguments: list[str]) -> int:
    """Check images, or the installed packages; print problems."""
    rules = Rules.read()
    packages = (
        [pair for path in arguments for pair in of_image(Path(path))]
        if arguments
        else list(of_installed(LOCKS))
    )
    wrong = [(name, problem) for name, found in packages if (problem := rules.problem(name, found))]
    for name, problem in wrong:
        print(f"{name}: {problem}")
    print(f"{len(packages)} packages, {len(wrong)} to check ({RULES.relative_to(ROOT)})")
    return 1 if wrong or not packages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
