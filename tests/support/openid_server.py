"""A real OpenID provider for the desk's tests: npm's oidc-provider, by the lock file beside it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import answering, running

FOLDER = Path(__file__).parents[1] / "desk" / "openid"
AXE = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
SECRET = "a secret of the day"
PEOPLE = {
    "ada": {"name": "Ada Byron", "groups": ["support"]},
    "bo": {"name": "Bo Diddley", "groups": ["support"]},
    "cleo": {"name": "Cleo Laine", "groups": ["support", "leads"]},
    "dora": {"name": "Dora Maar", "groups": ["managers"]},
    "eve": {"name": "Eve Arden", "groups": ["sales"]},
}
"""Who is known to it: two reviewers, an adjudicator, an owner, somebody of another department."""


@contextlib.contextmanager
def openid_server(port: int, desk: str) -> Iterator[str]:
    """Run the provider for the desk at this address; yields the issuer, which is another site."""
    if not AXE.exists():
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=FOLDER, check=True, timeout=300)
    given = json.dumps({"port": port, "desk": desk, "people": PEOPLE})
    issuer = f"http://localhost:{port}"
    with (
        running(["node", "provider.js", given], cwd=FOLDER) as process,
        answering(f"{issuer}/.well-known/openid-configuration", process),
    ):
        yield issuer
