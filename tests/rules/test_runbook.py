"""The runbook: its links lead somewhere, its commands exist, and its replay replays."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.chaos.harness import Arena
from tests.support.pages import anchors, links
from worker import errors

RUNBOOK = Path("docs/operations.md")
TEXT = RUNBOOK.read_text(encoding="utf-8")


def test_every_link_leads_somewhere() -> None:
    """Headings and files that it points to are there."""
    for path, anchor in links(str(RUNBOOK)):
        assert path.exists(), path
        assert not anchor or anchor in anchors(path), f"{path}#{anchor}"


@pytest.mark.parametrize("program", ["worker", "trainer"])
def test_every_command_exists(program: str) -> None:
    """Whoever is paged types what stands there: sub-commands and options are known."""
    lines = re.findall(rf"clerk-{program} ([a-z]+)([^`\n]*)", TEXT)
    assert lines
    for command, rest in set(lines):
        done = subprocess.run(
            [sys.executable, "-m", program, command, "--help"],
            capture_output=True,
            text=True,
            check=False,
            env={"COLUMNS": "200", "NO_COLOR": "1"},
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        for option in re.findall(r"--[a-z-]+", rest.split("#")[0]):
            assert option in done.stdout, f"{command} {option}"


def test_every_exit_code_is_explained() -> None:
    """The table of the first look has each code that the worker can end with."""
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    # 130 is Ctrl-C at a terminal: no orchestrator sees it.
    assert codes - {errors.EXIT_INTERRUPTED} <= explained


def _publish(arena: Arena, values: dict[str, bytes | None]) -> None:
    producer = Producer({"bootstrap.servers": arena.servers, "log_level": 0})
    for key, value in values.items():
        producer.produce(arena.topics["in"], value, key, headers=[("trace", b"\xff"), ("n", None)])
    assert producer.flush(30) == 0


def _inputs(arena: Arena) -> list[tuple[Any, Any, list[Any]]]:
    reader = Consumer(
        {
            "bootstrap.servers": arena.servers,
            "group.id": "runbook",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    reader.assign([TopicPartition(arena.topics["in"], n, 0) for n in range(arena.partitions)])
    found, ended = [], 0
    while ended < arena.partitions:
        message = reader.poll(20)
        assert message is not None
        if message.error():
            ended += 1
        else:
            found.append((message.key(), message.value(), list(message.headers() or [])))
    reader.close()
    return found


def test_the_replay_puts_back_what_was_asked_for_once(
    bootstrap_servers: str, tmp_path: Path
) -> None:
    """Dead letters of the reason named go back with key and headers; another run finds nothing."""
    code = TEXT.split("```python\n", 1)[1].split("```", 1)[0]
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        worker = arena.start_worker()
        worker.wait_until_ready("partitions.assigned")
        _publish(arena, {"a": b"{", "b": None, "c": b"[", "d": b'{"message": "hello"}'})
        arena.wait_for(4)
        assert arena.stop(worker) == 0
        settings = tmp_path / "worker.toml"
        settings.write_text(
            f'[kafka]\nbootstrap_servers = "{arena.servers}"\n'
            f'input_topics = "{arena.topics["in"]}"\n'
            f'dead_letter_topic = "{arena.topics["dead"]}"\n'
        )
        said = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-", str(settings), "not_json"],
                input=code.replace("filing-clerk-replay", f"replay-{arena.run}"),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            said.append(done.stdout.strip())
        assert said == ["2 messages replayed", "0 messages replayed"]
        again = _inputs(arena)
        assert len(again) == 6
        twice = [message for message in again if again.count(message) == 2]
        assert {key for key, _, _ in twice} == {b"a", b"c"}
        assert all(headers == [("trace", b"\xff"), ("n", None)] for _, _, headers in twice)
