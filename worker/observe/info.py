"""What this worker is, for ``/info``: version, model, settings; nothing secret."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from worker import __version__
from worker.engine.open import OpenedEngine
from worker.records.output import rfc3339
from worker.settings import Settings
from worker.settings_load import MASKED, LoadedSettings, effective


def describe(settings: Settings, started_at: datetime, opened: OpenedEngine | None) -> Any:
    """Return what JSON can carry. What comes with the model is null until it is loaded."""
    found: dict[str, Any] = {
        "version": __version__,
        "started_at": rfc3339(started_at),
        "adapter": None,
        "base": None,
        "taxonomy": None,
        "decoding": None,
        "serving": None,
        "settings": {
            name: shown if shown == MASKED else json.loads(shown)
            for name, shown, _ in effective(LoadedSettings(settings, {}))
        },
    }
    if opened is not None:
        manifest = opened.manifest
        found |= {
            "adapter": {
                "name": manifest.name,
                "digest": manifest.digest,
                "created_at": manifest.created_at,
            },
            "base": {"name": manifest.base.name, "revision": manifest.base.revision},
            "taxonomy": {
                "name": manifest.taxonomy.name,
                "version": manifest.taxonomy.version,
                "digest": manifest.taxonomy.digest,
                "labels": list(manifest.taxonomy.names),
            },
            "decoding": manifest.decoding,
            "serving": opened.serving,
        }
    return found
