"""Adapters that can be told apart by their answers, and which of them gave an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.toy_adapter import one_golden, toy_manifest, toy_spec, toy_taxonomy
from worker.contract import Manifest, Probe, write_manifest
from worker.contract.verify import ProbeFile, probes_path, write_probes
from worker.engine.port import Answer, CodeScores

PROBES = ("where is my parcel", "I was charged twice", "hello")


def labels_of(name: str) -> tuple[str, str]:
    """The labels of an adapter whose answers nobody else could give."""
    return f"{name}-a", f"{name}-b"


def make_manifest(name: str, **changes: Any) -> Manifest:
    """An adapter with labels, prompt and codes of its own: a mixture would be seen."""
    spec = toy_spec(max_message_tokens=24 + len(name))
    return toy_manifest(
        name=name,
        taxonomy=toy_taxonomy(labels_of(name)),
        prompt=spec,
        golden=one_golden(spec),
        **changes,
    )


ONE, TWO, THREE = (make_manifest(name) for name in ("one", "two", "three"))


def with_probes(manifest: Manifest, *labels: str) -> Manifest:
    """The same adapter, with a label recorded for each of the probes beside it."""
    probes = tuple(Probe(text, label) for text, label in zip(PROBES, labels, strict=True))
    found = replace(manifest)
    object.__setattr__(found, "probes", probes)  # as attach_probes does
    return found


def write_adapter(directory: Path, manifest: Manifest) -> None:
    """Write a manifest, and its probes beside the directory, which is there."""
    write_manifest(directory, manifest)
    if manifest.probes:
        file = ProbeFile(manifest.digest, "written", manifest.probes)
        write_probes(probes_path(directory), file)


def answer_with(manifest: Manifest, label: str, p: float = 0.9) -> Answer:
    """Scores by this adapter's codes."""
    rest = (0.99 - p) / max(1, len(manifest.codes) - 1)
    return CodeScores(
        {c.token_id: math.log(p if name == label else rest) for name, c in manifest.codes.items()}
    )


def by_length(manifest: Manifest, p: float = 0.9) -> Callable[[Sequence[int]], Answer]:
    """Answer with one of the adapter's labels, by the prompt's length, and give it ``p``."""
    names = manifest.taxonomy.names
    return lambda prompt: answer_with(manifest, names[len(prompt) % len(names)], p)


def stamps(outputs: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """By record: label and digest of the result, dead letters left out. Twice is an error."""
    found: dict[str, tuple[str, str]] = {}
    for outgoing in outputs:
        if outgoing.topic == "dead":
            continue
        value = json.loads(outgoing.value)
        assert value["id"] not in found, "published twice"
        found[value["id"]] = (value["label"], value["adapter"]["digest"])
    return found
