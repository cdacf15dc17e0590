"""Files in parts: every row once, whatever is killed, and nothing that was done is done again."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_onnx import write_tiny_encoder
from worker.errors import SettingsError
from worker.offline import backfill
from worker.offline.backfill import PLAN, run_backfill, try_backfill
from worker.offline.classify import clerk_of
from worker.offline.message_files import MessageFile
from worker.settings import ReviewSettings, Settings

ROWS = {"2024/a.jsonl": 23, "b.csv": 10, "c.txt": 1}
REVIEW = ReviewSettings(confidence=0.5)
BROKEN = 4
"""The line of the first file that is not JSON."""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("tiny") / "adapter")


@pytest.fixture
def settings(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(backfill, "PART_ROWS", 5)
    return Settings(model={"adapter": adapter})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    (folder / "2024").mkdir(parents=True)
    lines = [json.dumps({"id": f"m{n}", "message": f"where is order {n}"}) for n in range(23)]
    lines[BROKEN - 1] = "{"
    (folder / "2024" / "a.jsonl").write_text("\n".join(lines))
    table = "".join(f'c{n},"cell {n}\nsecond line"\n' for n in range(10))
    (folder / "b.csv").write_text(f"id,message\n{table}")
    (folder / "c.txt").write_text("one line\n")
    (folder / "_SUCCESS").write_text("")
    return folder


def given(folder: Path) -> MessageFile:
    return MessageFile(str(folder))


def records(out: Path) -> Iterator[dict[str, Any]]:
    """What was written, without the times."""
    for path in sorted(out.glob("part-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield {k: v for k, v in json.loads(line).items() if k not in {"labelled_at", "latency"}}


def test_every_row_of_a_folder_is_written_once_and_in_order(
    settings: Settings, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_backfill(settings, given(archive), tmp_path / "out")
    found = list(records(tmp_path / "out"))
    assert [each["id"].rsplit("-", 2)[0] for each in found] == [
        name for name, rows in ROWS.items() for _ in range(rows)
    ]
    assert len({each["id"] for each in found}) == sum(ROWS.values())
    assert [each["message_id"] for each in found][-4:] == ["c7", "c8", "c9", None]
    (without,) = (each for each in found if each["label"] is None)
    assert (without["reason"], without["source"]["offset"]) == ("not_json", BROKEN)
    said = capsys.readouterr().err
    assert "34 rows: 33 labelled" in said
    assert "1 without a label (not_json: 1); 8 of 8 parts are in" in said
    sizes = [len(path.read_text().splitlines()) for path in sorted(tmp_path.glob("out/part-*"))]
    assert sizes == [5, 5, 5, 5, 3, 5, 5, 1]


def test_parts_can_be_parquet_with_the_main_columns_and_the_record(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    from pyarrow import parquet

    run_backfill(settings, given(archive), tmp_path / "lines")
    run_backfill(settings, given(archive), tmp_path / "out", part_format="parquet")
    table = parquet.read_table(tmp_path / "out")
    assert table.num_rows == sum(ROWS.values())
    for row, record in zip(table.to_pylist(), records(tmp_path / "lines"), strict=True):
        told = json.loads(row["record"])
        assert {name: told[name] for name in record} == record
        assert row["label"] == record["label"]
        assert (row["reason"] is None) == (record["label"] is not None)
        assert row["review"] == (record["review"]["needed"] if record["label"] else None)
    with pytest.raises(SettingsError, match="for other options"):
        run_backfill(settings, given(archive), tmp_path / "out")


def test_broken_rows_of_a_table_are_counted_and_kept(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundredth has another number of cells; they come last, with their lines."""
    lines = [f"r{n},cell {n}" + ",too,many" * (n % 100 == 50) for n in range(200)]
    (tmp_path / "a.csv").write_text("\n".join(["id,message", *lines]) + "\n")
    run_backfill(settings, given(tmp_path / "a.csv"), tmp_path / "out")
    found = list(records(tmp_path / "out"))
    assert [each["label"] is not None for each in found] == [True] * 198 + [False] * 2
    assert [each["source"]["offset"] for each in found[198:]] == [52, 152]
    assert {each["reason"] for each in found[198:]} == {"field_missing"}
    assert "200 rows: 198 labelled" in capsys.readouterr().err


def test_what_is_there_is_not_done_again_and_shares_complete_each_other(
    settings: Settings, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    run_backfill(settings, given(archive), alone)
    for number in (3, 1, 2):
        run_backfill(settings, given(archive), out, share=(number, 3))
    assert list(records(out)) == list(records(alone))
    lost = out / "part-000004.jsonl"
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path != lost}
    lost.unlink()
    run_backfill(settings, given(archive), out)
    assert list(records(out)) == list(records(alone))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    monkeypatch.setattr(backfill, "clerk_of", None)  # no model is opened for nothing
    run_backfill(settings, given(archive), out)


def test_another_input_or_adapter_does_not_mix_with_the_plan(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_backfill(settings, given(archive), out, share=(1, 8))
    other = write_tiny_encoder(tmp_path / "other", name="other")
    with pytest.raises(SettingsError, match=r"_plan\.json: was made for other adapter"):
        run_backfill(Settings(model={"adapter": other}), given(archive), out)
    with pytest.raises(SettingsError, match="for other options"):
        run_backfill(settings, MessageFile(str(archive), field="body"), out)
    (archive / "c.txt").write_text("another line\n")
    with pytest.raises(SettingsError, match="for other files"):
        run_backfill(settings, given(archive), out)
    with pytest.raises(SettingsError, match="for other options"):
        run_backfill(settings.model_copy(update={"review": REVIEW}), given(archive), out)
    with pytest.raises(SettingsError, match="lies in the input"):
        run_backfill(settings, given(archive), archive / "out")
    (out / PLAN).write_text("{}")
    with pytest.raises(SettingsError, match="is not a plan"):
        run_backfill(settings, given(archive), out)


def test_a_file_that_becomes_shorter_meanwhile_leaves_no_part_behind(
    settings: Settings, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_and_open(settings: Settings) -> Any:
        path = archive / "2024" / "a.jsonl"
        path.write_text("\n".join(path.read_text().splitlines()[:12]))
        return clerk_of(settings)

    monkeypatch.setattr(backfill, "clerk_of", cut_and_open)
    with pytest.raises(SettingsError, match=r"2024/a\.jsonl has changed"):
        run_backfill(settings, given(archive), tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [PLAN, "part-000001.jsonl", "part-000002.jsonl"]


def test_all_files_that_cannot_be_read_are_named_before_anything_is_written(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    (archive / "d.csv").write_text("id,body\n1,hello\n")
    (archive / "e.pdf").write_bytes(b"%PDF")
    for run in (partial(run_backfill, out=tmp_path / "out"), try_backfill):
        with pytest.raises(SettingsError) as caught:
            run(settings, given(archive))
        assert "d.csv: no column 'message', only id, body" in str(caught.value)
        assert "e.pdf: unknown file type" in str(caught.value)
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="has no files"):
        run_backfill(settings, given(tmp_path / "empty"), tmp_path / "out")


def test_a_trial_says_how_long_all_would_take_and_writes_nothing(
    settings: Settings, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = tmp_path / "archive" / ".prices.toml"
    prices.write_text('machine = [{name = "m7g", currency = "USD", per_hour = 36000}]')
    try_backfill(settings, given(archive), prices)
    said = capsys.readouterr().out
    assert "34 rows in 3 files at " in said
    rate = float(re.search(r"at ([\d,]+)/s", said)[1].replace(",", ""))  # type: ignore[index]
    cost = float(re.search(r"([\d.]+) USD on m7g", said)[1])  # type: ignore[index]
    assert cost == pytest.approx(34 / rate * 10, rel=0.02, abs=0.01)
    prices.write_text("machine = [{}]")
    with pytest.raises(SettingsError, match=r"--prices .*prices.toml: "):
        try_backfill(settings, given(archive), prices)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive"]


@pytest.mark.slow
def test_kills_leave_whole_parts_and_the_next_run_completes_them(
    adapter: Path, archive: Path, tmp_path: Path
) -> None:
    many = [json.dumps({"id": f"k{n}", "message": f"message {n} " * 40}) for n in range(1500)]
    (archive / "many.jsonl").write_text("\n".join(many))
    code = (
        "import sys; from worker.offline import backfill; backfill.PART_ROWS = 50\n"
        "from worker.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "classify", "-s", f"model.adapter={adapter}"]
    draw = random.Random(3)
    kills = 0
    for name, most in (("alone", 0), ("killed", 2)):
        while True:
            program = subprocess.Popen(
                [*command, "-i", str(archive), "--out", str(tmp_path / name)],
                stderr=subprocess.PIPE,
                env={**os.environ},
            )
            if kills < most:
                wanted = len(list((tmp_path / name).glob("part-*"))) + draw.randint(1, 8)
                until = time.monotonic() + 60
                while len(list((tmp_path / name).glob("part-*"))) < wanted:
                    assert time.monotonic() < until
                    time.sleep(0.01)
                program.kill()
                program.communicate()
                kills += 1
                continue
            assert program.wait(120) == 0, program.communicate()[1]
            program.communicate()
            break
    assert kills == 2
    assert list(records(tmp_path / "killed")) == list(records(tmp_path / "alone"))
    shutil.rmtree(tmp_path / "alone")
