"""Print whether each worker is ready and what it serves; exit 1 if one is not ready.

Arguments are the least number of workers, then host:port. A host that resolves to several
addresses counts as several workers. With 0 (autoscaling to zero), no worker at all is healthy.
Standard library only: `helm test` runs it in any image with Python 3.
"""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from typing import Any


def addresses(target: str) -> list[tuple[str, int]]:
    """Resolve a target to (host, port) pairs; empty if the name is unknown."""
    host, _, port = target.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        print(f"{target}: no such worker: {error.strerror}")
        return []
    return sorted({(str(entry[4][0]), int(entry[4][1])) for entry in found})


def ask(host: str, port: int, path: str) -> tuple[int, Any]:
    """Return the HTTP status and the JSON body."""
    place = f"[{host}]" if ":" in host else host
    try:
        with urllib.request.urlopen(f"http://{place}:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def check(host: str, port: int) -> bool:
    """Print a worker's state; return whether it is ready."""
    try:
        status, ready = ask(host, port, "/readyz")
        _, info = ask(host, port, "/info")
    except (OSError, ValueError) as error:
        print(f"{host}:{port}: no answer: {error}")
        return False
    good = status == 200 and ready.get("ok") is True and isinstance(info, dict)
    print(f"{host}:{port}: {'ready' if good else 'not ready: ' + json.dumps(ready)}")
    print(f"  {json.dumps(info, sort_keys=True)}")
    return good


def main(least: int, targets: list[str]) -> int:
    """Check all targets; 0 if there are at least ``least`` workers and all are ready."""
    workers = [address for target in targets for address in addresses(target)]
    answers = [check(*address) for address in workers]
    print(f"{sum(answers)} of {len(answers)} workers are ready; at least {least} should be")
    return 0 if len(answers) >= least and all(answers) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
