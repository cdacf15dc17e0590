"""``classify --out`` from a bucket into a bucket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.buckets.conftest import BUCKET, Gateway
from tests.support.tiny_onnx import write_tiny_encoder
from worker.common.bucket import Bucket
from worker.errors import SettingsError
from worker.offline import backfill
from worker.offline.backfill import run_backfill, try_backfill
from worker.offline.message_files import MessageFile
from worker.settings import Settings

ROOT = f"s3://{BUCKET}"


@pytest.fixture
def settings(tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(backfill, "PART_ROWS", 5)
    return Settings(model={"adapter": write_tiny_encoder(tmp_path / "adapter")})


def _records(parts: dict[str, bytes]) -> list[dict[str, Any]]:
    times = {"labelled_at", "latency"}
    lines = [json.loads(line) for name in sorted(parts) for line in parts[name].splitlines()]
    return [{key: each[key] for key in each if key not in times} for each in lines]


def test_the_same_parts_as_between_folders(settings: Settings, tmp_path: Path) -> None:
    """And again only what is missing."""
    here, there = tmp_path / "archive", Bucket(f"{ROOT}/archive")
    (here / "2024").mkdir(parents=True)
    for name, rows in (("2024/a.jsonl", 12), ("b.jsonl", 3), ("_SUCCESS", 0)):
        lines = (json.dumps({"id": f"m{n}", "message": f"order {n}"}) for n in range(rows))
        (here / name).write_text("\n".join(lines))
        there.put(name, (here / name).read_bytes())
    run_backfill(settings, MessageFile(str(here)), tmp_path / "out")
    local = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("part-*")}
    archive, out = MessageFile(f"{ROOT}/archive"), Bucket(f"{ROOT}/labelled")
    for lost in ("part-000002.jsonl", None):
        run_backfill(settings, archive, out.url)
        parts = {name: out.get(name) for name in out.list() if name != backfill.PLAN}
        found = {name: blob.data for name, blob in parts.items() if blob}
        assert _records(found) == _records(local)
        if lost:
            out.delete(lost)
    run_backfill(settings, MessageFile(f"{ROOT}/archive/b.jsonl"), tmp_path / "one")
    assert len(_records({"": (tmp_path / "one" / "part-000001.jsonl").read_bytes()})) == 3
    there.put("b.jsonl", b'{"message": "another"}')
    with pytest.raises(SettingsError, match="for other files"):
        run_backfill(settings, archive, out.url)
    with pytest.raises(SettingsError, match="lies in the input"):
        run_backfill(settings, archive, f"{ROOT}/archive/out")


def test_a_bucket_that_is_not_there_is_named(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="--input s3://nowhere/a: "):
        try_backfill(settings, MessageFile("s3://nowhere/a"))
