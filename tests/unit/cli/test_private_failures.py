"""Commands that fail while they process a message show nothing of its text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SECRET = "Zanzibar-4111"

WORKER = """
import sys
import worker.offline.classify as classify
from tests.support.toy_adapter import ENCODERS, scores, small_manifest
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.cli.main import main

def opened(settings):
    engine = FakeEngine(lambda _: scores("delivery"), service_s=0.0, concurrency=4)
    return OpenedEngine(engine, small_manifest(), ENCODERS, "merged")

classify.open_model = opened
{break_it}
sys.argv[1:] = {arguments!r}
main()
"""

TRAINER = """
import sys
from trainer.cli.main import main
{break_it}
sys.argv[1:] = {arguments!r}
main()
"""

BREAK = """
import worker.contract.text as t
real = t.bound_marks
def bound_marks(text):
    return fail(text) if "Zanzibar" in text else real(text)
t.bound_marks = bound_marks
"""
BROKEN = {
    "a key": "def fail(text): return {}[text]",
    "a number": "def fail(text): raise RuntimeError('CUDA error') from ValueError(text)",
    "locals": "def fail(text):\n    secret = text + text\n    return secret.missing",
}


def run(script: str, break_it: str, arguments: list[str], **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script.format(break_it=BREAK + break_it, arguments=arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("given", ["argument", "file"])
def test_classify_shows_no_text_of_a_message_it_fails_on(
    tmp_path: Path, kind: str, form: str, given: str
) -> None:
    """On the main thread and on the thread that reads a file."""
    rows = tmp_path / "messages.txt"
    rows.write_text(f"où est ma commande, {SECRET}?\n", encoding="utf-8")
    text = rows.read_text(encoding="utf-8")
    arguments = ["classify", text] if given == "argument" else ["classify", "--input", str(rows)]
    shown = run(WORKER, BROKEN[kind], arguments, CLERK_LOG__FORMAT=form, COLUMNS="400")
    assert SECRET not in shown
    assert "in fail" in shown


@pytest.mark.parametrize("kind", BROKEN)
def test_prepare_shows_no_text_of_a_message_it_fails_on(tmp_path: Path, kind: str) -> None:
    rows = tmp_path / "export.csv"
    rows.write_text(f"id,message,label\n1,{SECRET} à,a\n2,{SECRET} é,b\n", encoding="utf-8")
    taxonomy = tmp_path / "taxonomy.toml"
    taxonomy.write_text(
        'name = "t"\nversion = "1"\n[[labels]]\nname = "a"\n[[labels]]\nname = "b"\n'
    )
    arguments = [
        "prepare",
        "--input",
        str(rows),
        "--taxonomy",
        str(taxonomy),
        "--out",
        str(tmp_path / "out"),
    ]
    shown = run(TRAINER, BROKEN[kind], arguments, COLUMNS="400")
    assert SECRET not in shown
    assert "in fail" in shown
