"""A Schema Registry on this machine that can be stopped: a small one, or a gate in front of a real
one, whose URL is in ``CLERK_TEST_SCHEMA_REGISTRY``."""

from __future__ import annotations

import itertools
import json
import os
import threading
import urllib.error
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REAL = os.environ.get("CLERK_TEST_SCHEMA_REGISTRY", "")


class LocalRegistry:
    """Answers the calls of Confluent's client. A schema is compatible if no field is gone."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        """Calls by method and path."""
        self._schemas: dict[int, dict[str, str]] = {}
        self._subjects: dict[str, list[int]] = {}
        self._ids = itertools.count(1)
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Answer, at the same place as before."""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes | None) -> None:
                status, found = registry.answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        self.asked[f"{method} {urlsplit(path).path}"] += 1
        if REAL:
            return _forward(method, path, body)
        status, found = self._own(urlsplit(path).path.strip("/").split("/"), body)
        return status, json.dumps(found).encode()

    def _own(self, path: list[str], body: bytes | None) -> tuple[int, Any]:
        given = None if body is None else _normal(json.loads(body))
        found: Any = None
        match path:
            case ["schemas", "ids", number]:
                found = self._schemas.get(int(number))
            case ["subjects"]:
                found = list(self._subjects)
            case ["subjects", subject, "versions"] if given is not None:
                found = {"id": self._register(subject, given)}
            case ["subjects", subject]:
                for version, id_ in enumerate(self._subjects.get(subject, []), 1):
                    if self._schemas[id_] == given:
                        found = {"subject": subject, "id": id_, "version": version, **given}
            case ["compatibility", "subjects", subject, *_] if given and subject in self._subjects:
                last = self._schemas[self._subjects[subject][-1]]
                found = {"is_compatible": _fields(last) <= _fields(given)}
        code = 40403 if path[0] in {"schemas", "subjects", "compatibility"} else 404
        return (404, {"error_code": code, "message": "none"}) if found is None else (200, found)

    def _register(self, subject: str, given: dict[str, str]) -> int:
        known = next((id_ for id_, each in self._schemas.items() if each == given), None)
        id_ = next(self._ids) if known is None else known
        self._schemas[id_] = given
        if id_ not in self._subjects.setdefault(subject, []):
            self._subjects[subject].append(id_)
        return id_


def _normal(body: dict[str, Any]) -> dict[str, str]:
    return {"schema": body["schema"], "schemaType": body.get("schemaType", "AVRO")}


def _fields(schema: dict[str, str]) -> set[str]:
    parsed = json.loads(schema["schema"])
    avro = {field["name"] for field in parsed.get("fields", [])}
    return avro | set(parsed.get("properties", {}))


def _forward(method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    request = urllib.request.Request(REAL + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
