"""A made-up vulnerability database for the rehearsal of the scan, and things to scan.

    python -m tests.release.weaknesses empty FILE           # a database without tables
    python -m tests.release.weaknesses fill FILE NAME ...   # these weaknesses into one with tables
    python -m tests.release.weaknesses sbom FILE            # a bill of materials with our packages
    python -m tests.release.weaknesses packages FOLDER      # the same, as if installed in FOLDER

The packages are those of locks/image-tools.txt, at their versions. The tables are grype's own
(``grype db import`` creates missing ones); the columns filled here are those of its schema 6. Needs
only Python: nothing is installed for the rehearsal.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LOCK = Path(__file__).parents[2] / "locks" / "image-tools.txt"
SCHEMA = (6, 1, 10)
"""Of the pinned grype, which creates its own tables except for this row."""


@dataclass(frozen=True, slots=True)
class Weakness:
    """One entry. ``ours``: the locked version has it; ``fix``: a later version does not."""

    package: str
    severity: str
    fix: bool = True
    ours: bool = True


WEAKNESSES: Mapping[str, Weakness] = {
    "MADE-UP-HIGH-WITH-FIX": Weakness("confluent-kafka", "high"),
    "MADE-UP-CRITICAL-WITH-FIX": Weakness("confluent-kafka", "critical"),
    "MADE-UP-HIGH-WITHOUT-FIX": Weakness("pydantic", "high", fix=False),
    "MADE-UP-LOW-WITH-FIX": Weakness("typer", "low"),
    "MADE-UP-HIGH-OF-ANOTHER-VERSION": Weakness("confluent-kafka", "high", ours=False),
}


def locked() -> Iterator[tuple[str, str]]:
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([a-z0-9-]+)==([^ ;]+)", line):
            yield found[1], found[2]


def write_empty(path: Path) -> None:
    """Write a database that has only a version."""
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE db_metadata (build_timestamp datetime NOT NULL, model integer NOT NULL,"
            " revision integer NOT NULL, addition integer NOT NULL)"
        )
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S+00:00")
        database.execute("INSERT INTO db_metadata VALUES (?, ?, ?, ?)", (now, *SCHEMA))


def fill(path: Path, names: Sequence[str]) -> None:
    """Add these entries to a database with grype's tables."""
    versions = dict(locked())
    with sqlite3.connect(path) as database:
        put = database.execute
        put(
            "INSERT INTO providers (id, version, processor, input_digest)"
            " VALUES ('github', '1', 'made up', 'xxh64:0')"
        )
        for number, name in enumerate(names, 1):
            weakness = WEAKNESSES[name]
            about = {
                "id": name,
                "description": "Made up.",
                "severities": [{"scheme": "CHML", "value": weakness.severity, "rank": 1}],
            }
            version = versions[weakness.package]
            bound = f"<={version}" if weakness.ours else f"<{version}"
            fix = {"version": f"{version}.1", "state": "fixed"}
            where = {
                "ranges": [
                    {
                        "version": {"type": "python", "constraint": bound},
                        "fix": fix if weakness.fix else {"state": "not-fixed"},
                    }
                ]
            }
            blob = 2 * number
            for key, value in ((blob, about), (blob + 1, where)):
                put("INSERT INTO blobs (id, value) VALUES (?, ?)", (key, json.dumps(value)))
            put(
                "INSERT INTO vulnerability_handles (id, name, status, provider_id, blob_id)"
                " VALUES (?, ?, 'active', 'github', ?)",
                (number, name, blob),
            )
            put(
                "INSERT OR IGNORE INTO packages (ecosystem, name) VALUES ('python', ?)",
                (weakness.package,),
            )
            put(
                "INSERT INTO affected_package_handles (vulnerability_id, package_id, blob_id)"
                " SELECT ?, id, ? FROM packages WHERE name = ?",
                (number, blob + 1, weakness.package),
            )


def write_sbom(path: Path) -> None:
    """Write a bill of materials like an image's."""
    components = [
        {
            "type": "library",
            "bom-ref": f"{name}=={version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
        }
        for name, version in locked()
    ]
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}
    path.write_text(json.dumps(document), encoding="utf-8")


def write_packages(folder: Path) -> None:
    """Write the folders by which Python and scanners recognize installed packages."""
    place = folder / "opt/filing-clerk/lib/python3.11/site-packages"
    for name, version in locked():
        about = place / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (about / "METADATA").write_text(text, encoding="utf-8")
        (about / "RECORD").touch()


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["empty", file]:
            write_empty(Path(file))
        case ["fill", file, *names] if set(names) <= WEAKNESSES.keys():
            fill(Path(file), names)
        case ["sbom", file]:
            write_sbom(Path(file))
        case ["packages", folder]:
            write_packages(Path(folder))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
