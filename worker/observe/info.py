"""The content of ``/info``: version, model, adapters, settings; no secrets."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from worker import __version__
from worker.contract.timestamps import rfc3339
from worker.core.arms import AdapterRouter, Arm
from worker.core.labeller import ServingAdapter
from worker.engine.open import OpenedEngine
from worker.lifecycle.events import AdapterEvents, Refused, Stopped
from worker.settings import Settings
from worker.settings_load import REDACTED, LoadedSettings, effective


def describe_worker(
    settings: Settings,
    started_at: datetime,
    opened: OpenedEngine | None,
    serving: tuple[AdapterRouter, AdapterEvents] | None,
) -> Any:
    """Return plain JSON. What depends on the model is null until it is loaded.

    ``adapter``, ``taxonomy``, ``kind``, ``stages`` and ``decoding`` are of the main adapter that
    serves now. ``precisions`` is what an adapter is served in, of a cascade each stage.
    """
    found: dict[str, Any] = {
        "version": __version__,
        "started_at": rfc3339(started_at),
        "adapter": None,
        "adapters": [],
        "last_refusal": None,
        "canary_stopped": None,
        "base": None,
        "taxonomy": None,
        "kind": None,
        "stages": [],
        "decoding": None,
        "serving": None,
        "settings": {
            name: shown if shown == REDACTED else json.loads(shown)
            for name, shown, _ in effective(LoadedSettings(settings, {}))
        },
    }
    if opened is not None and serving is not None:
        router, events = serving
        split = router.split
        found |= _model(split.main)
        found |= {
            "adapters": [
                _serving(arm, ratio) for arm, ratio in zip(split.arms, split.ratios, strict=True)
            ],
            "last_refusal": _told(events.last_refusal),
            "canary_stopped": _told(events.stopped.get("canary")),
            "serving": opened.serving,
        }
    return found


def _model(main: ServingAdapter) -> dict[str, Any]:
    manifest = main.manifest
    return {
        "adapter": {
            "name": manifest.name,
            "digest": manifest.digest,
            "precisions": list(main.engine.precisions),
            "created_at": manifest.created_at,
            "since": _since(main),
        },
        "base": {"name": manifest.base.name, "revision": manifest.base.revision},
        "taxonomy": {
            "name": manifest.taxonomy.name,
            "version": manifest.taxonomy.version,
            "digest": manifest.taxonomy.digest,
            "labels": list(manifest.taxonomy.names),
        },
        "kind": manifest.kind,
        "stages": [
            {
                "name": stage.name,
                "digest": stage.digest,
                "kind": stage.kind,
                "sure_from": stage.sure_from,
                "share": stage.share,
            }
            for stage in manifest.stages
        ],
        "decoding": manifest.answers_with,
    }


def _serving(arm: Arm, ratio: float) -> dict[str, Any]:
    return {
        "role": arm.role.name,
        "name": arm.adapter.manifest.name,
        "digest": arm.adapter.digest,
        "precisions": list(arm.adapter.engine.precisions),
        "share": round(ratio, 6),
        "since": _since(arm.adapter),
    }


def _since(adapter: ServingAdapter) -> str | None:
    return None if adapter.since is None else rfc3339(adapter.since)


def _told(event: Refused | Stopped | None) -> dict[str, Any] | None:
    return None if event is None else {**asdict(event), "at": rfc3339(event.at)}
