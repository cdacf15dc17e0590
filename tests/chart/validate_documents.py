"""Validate documents against the schemas of Kubernetes, KEDA and the Prometheus operator.

Standard input: a JSON list of {"from": words, "version": "1.36", "document": {...}}. Standard
output: a line for each problem; exit code 1 if there is one. Runs in .venv-chart, which has the
schemas.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus
from pydantic import BaseModel, ValidationError

MODELS: Mapping[str, Any] = {"keda.sh/v1alpha1": keda, "monitoring.coreos.com/v1": prometheus}


def problems(document: dict[str, Any], version: str) -> Iterator[str]:
    """Give what a schema says against a document; unknown kinds too."""
    module = MODELS.get(document["apiVersion"])
    if module is None:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError,
        ) as error:
            yield str(getattr(error, "message", error))
        return
    model: type[BaseModel] = getattr(module, document["kind"])
    if document["kind"] == "ScaledObject":
        # These schemas are of KEDA 2.16; the key came with 2.17.
        document["spec"].get("fallback", {}).pop("behavior", None)
    try:
        model.model_validate(document, extra="forbid")
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            yield f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def main() -> int:
    """Validate what comes in."""
    found = 0
    for case in json.load(sys.stdin):
        document = case["document"]
        for problem in problems(document, case["version"]):
            print(f"{case['from']}: {document['kind']} {document['metadata']['name']}: {problem}")
            found = 1
    return found


if __name__ == "__main__":
    sys.exit(main())
