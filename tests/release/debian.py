"""Add Debian's packages to an image's bill of materials (CycloneDX), whose own are Python's.

    dpkg-query -W -f '${Package} ${Version} ${Architecture}\\n' |
        python -m tests.release.debian FILE

Package URLs as in https://github.com/package-url/purl-spec (type deb).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote


def components(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return a component for each line of name, version and architecture."""
    found = []
    for name, version, architecture in (line.split() for line in lines):
        purl = f"pkg:deb/debian/{quote(name, '')}@{quote(version, '')}?arch={architecture}"
        found.append(
            {"type": "library", "name": name, "version": version, "bom-ref": purl, "purl": purl}
        )
    return found


def main() -> None:
    path = Path(sys.argv[1])
    bill = json.loads(path.read_text(encoding="utf-8"))
    bill["components"] += components(sys.stdin)
    path.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
