"""``clerk-worker adapters`` and ``health``: the adapters in a store, and what workers answer.

Standard library only, so that it starts fast in a container.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from worker.common.errors import EXIT_SETTINGS
from worker.contract.codec import encode
from worker.contract.errors import AdapterRefused
from worker.contract.manifest import Manifest, read_manifest
from worker.contract.store import read_canary, read_pointer, stored_digests
from worker.contract.verify import attach_probes

_TIMEOUT_S = 5.0  # for each worker: one that hangs must not hide the others
_NO_ANSWER = (OSError, ValueError, http.client.HTTPException)


def show_adapters(store: Path | None, workers: Sequence[str], *, as_json: bool) -> int:
    """Print store and workers; return 1 if a worker does not answer or does not serve the current
    adapter, else 0. Raises AdapterRefused if the store's pointers cannot be read."""
    found: dict[str, Any] = {
        "schema": "worker-adapters/1",
        "store": None if store is None else _store(store),
        "workers": [_worker(url) for url in workers],
    }
    current = (found["store"] or {}).get("current")
    for worker in found["workers"]:
        worker["follows"] = _follows(worker, current)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        _print(found)
    return int(any(worker["follows"] is False or worker["error"] for worker in found["workers"]))


def _store(store: Path) -> dict[str, Any]:
    if not store.is_dir():
        raise AdapterRefused(store, "there is no such store")
    pointer, canary = read_pointer(store), read_canary(store)
    return {
        "path": str(store),
        "current": encode(pointer),
        "canary": encode(canary),
        "adapters": [_stored(store / digest) for digest in stored_digests(store)],
    }


def _stored(directory: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(directory)
    except AdapterRefused as error:
        return {"digest": directory.name, "name": None, "problem": error.problem}
    return {
        "digest": directory.name,
        "name": manifest.name,
        "created_at": manifest.created_at,
        "labels": len(manifest.taxonomy.names),
        "taxonomy": f"{manifest.taxonomy.name} {manifest.taxonomy.version}",
        "probes": _count_probes(directory, manifest),
        "problem": None,
    }


def _count_probes(directory: Path, manifest: Manifest) -> int | None:
    """Return the number of an adapter's probes; None if they are unreadable or damaged, which
    workers report."""
    try:
        return len(attach_probes(manifest, directory).probes)
    except AdapterRefused:
        return None


def _worker(url: str) -> dict[str, Any]:
    # urlsplit takes HOST:PORT without slashes for a scheme and a path.
    parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
    answer: dict[str, Any] = {"url": url, "error": None, "adapters": []}
    if parts.scheme != "http" or not parts.hostname:
        return answer | {"error": "write http://HOST:PORT"}
    try:
        status, body = _get(parts, "/info")
    except _NO_ANSWER as error:
        return answer | {"error": f"no answer: {error or type(error).__name__}"}
    if status != http.HTTPStatus.OK:
        return answer | {"error": f"HTTP status {status}: check that it is a worker"}
    try:
        info = json.loads(body)
        return answer | {
            "adapters": info["adapters"],
            "last_refusal": info["last_refusal"],
            "canary_stopped": info["canary_stopped"],
            "error": None if info["adapters"] else "its model is loading",
        }
    except (ValueError, KeyError, TypeError):
        return answer | {"error": "not a worker's answer: check host and port"}


def _get(parts: SplitResult, path: str) -> tuple[int, bytes]:
    """Return a worker's status and answer. Raises one of _NO_ANSWER.

    It does not use urllib, which would send the request to a proxy from the environment.
    """
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def ask(url: str) -> int:
    """Print a worker's answer; return 0 if it is healthy, 1 if not or without an answer."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        print(f"error: --url {url}: write http://HOST:PORT/PATH", file=sys.stderr)
        return EXIT_SETTINGS
    try:
        status, body = _get(parts, parts.path or "/readyz")
    except _NO_ANSWER as error:
        print(f"{url}: no answer: {error}", file=sys.stderr)
        return 1
    healthy = status == http.HTTPStatus.OK
    said = _describe(url, body.decode("utf-8", "replace"))
    print(said, file=sys.stdout if healthy else sys.stderr)
    return 0 if healthy else 1


def _describe(url: str, body: str) -> str:
    try:
        verdict = json.loads(body)
        return f"{url}: {'ok' if verdict['ok'] else '; '.join(verdict['why'])}"
    except (ValueError, TypeError, KeyError):
        return f"{url}: {body.strip()[:200]}"


def _follows(worker: dict[str, Any], current: dict[str, Any] | None) -> bool | None:
    """Whether a worker's main adapter is the store's current one; None if unknown."""
    if worker["error"] or current is None:
        return None
    return any(
        adapter["role"] == "main" and adapter["digest"] == current["digest"]
        for adapter in worker["adapters"]
    )


def _print(found: dict[str, Any]) -> None:
    store = found["store"]
    if store is not None:
        current, canary = store["current"], store["canary"]
        for adapter in store["adapters"]:
            marks = [
                name
                for name, pointer in (("current", current), ("canary", canary))
                if pointer is not None and pointer["digest"] == adapter["digest"]
            ]
            what = adapter["problem"] or f"{adapter['taxonomy']}, {adapter['labels']} labels"
            name = f"{adapter['digest'][:12]}  {adapter['name'] or '-'}"
            print(f"{name}  {what}  {' '.join(marks)}".rstrip())
        if current is None:
            print(f"{store['path']}: no current adapter")
        else:
            print(f"current since {current['since']}, by {current['by']}{_why(current)}")
        if canary is not None:
            print(
                f"canary for {canary['share']:g} of the keys since {canary['since']}, by "
                f"{canary['by']}{_why(canary)}"
            )
    for worker in found["workers"]:
        _print_worker(worker)


def _print_worker(worker: dict[str, Any]) -> None:
    if worker["error"]:
        print(f"{worker['url']}: {worker['error']}", file=sys.stderr)
        return
    behind = "  NOT the store's current adapter" if worker["follows"] is False else ""
    for adapter in worker["adapters"]:
        print(
            f"{worker['url']}: {adapter['role']} {adapter['digest'][:12]} {adapter['name']} since "
            f"{adapter['since']}, share {adapter['share']:g}"
            f"{behind if adapter['role'] == 'main' else ''}"
        )
    refusal, stopped = worker["last_refusal"], worker["canary_stopped"]
    if refusal is not None:
        named = f"{(refusal['digest'] or '-')[:12]} ({refusal['role']})"
        print(
            f"{worker['url']}: refused {named} at {refusal['at']}: {refusal['reason']}: "
            f"{refusal['problem']}"
        )
    if stopped is not None:
        print(
            f"{worker['url']}: stopped the canary {stopped['digest'][:12]} at {stopped['at']}: "
            f"{stopped['reason']}"
        )


def _why(pointer: dict[str, Any]) -> str:
    return f": {pointer['reason']}" if pointer["reason"] else ""
