"""The Dockerfile itself: every way to build it stays possible."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import module_graph
from worker.contract.verify import probes_path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FINAL = (
    "worker",
    "worker-cpu",
    "worker-cpu-demo",
    "worker-encoder",
    "worker-ray",
    "worker-tools",
    "desk",
    "trainer",
)
"""The stages that are published as images."""


def test_the_linter_finds_nothing() -> None:
    """docs/images.md has the reason for each rule that hadolint ignores."""
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    ignored = set(re.findall(r"hadolint ignore=(\w+)", TEXT))
    assert ignored
    assert {rule for rule in ignored if f"`{rule}`" not in page} == set()


def test_the_copied_files_make_the_demo_model() -> None:
    """The stage copies a few of the worker's files, and they import no other."""
    stage = TEXT.partition(" AS demo-model\n")[2].partition("\nFROM ")[0]
    copied = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in re.findall(r"worker/\S+\.py", stage)
    }
    graph = module_graph("worker")
    assert "worker.common.base_model" in copied
    loaded = {name for module in copied for name in graph[module]}
    assert loaded - copied - {"worker.common", "worker"} == set()


def test_it_needs_no_particular_builder() -> None:
    """Nothing that only BuildKit understands, so that any Docker can build it."""
    for word in ("# syntax", "--mount", "--link", "--chmod", "<<"):
        assert word not in TEXT


def test_the_base_is_one_argument() -> None:
    """A digest or an internal mirror is set once."""
    outside = set(re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", TEXT, re.MULTILINE))
    assert outside - stages == {"${BASE}"}
    assert set(FINAL) <= stages


@pytest.mark.parametrize("stage", FINAL)
def test_the_final_stages_do_not_contain_the_build(stage: str) -> None:
    """A final stage descends from the base, never from a stage with build tools."""
    found = re.findall(r"^FROM (\S+) AS (\S+)", TEXT, re.MULTILINE)
    parents = {child: parent for parent, child in found}
    while stage != "${BASE}":
        assert stage != "tools"
        stage = parents[stage]


def stage(name: str) -> str:
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("with_probes", [True, False])
def test_the_demos_adapter_has_its_probes(tmp_path: Path, with_probes: bool) -> None:
    """If ``make adapter`` wrote probes, they are next to the adapter's folder under its name,
    where a worker looks for them, and readable by all. Runs the stage's own commands, without
    the wheel's build."""
    adapter = tmp_path / "src" / "worker" / "demo" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "manifest.json").write_text("{}", encoding="utf-8")
    if with_probes:
        probes = probes_path(adapter)
        probes.write_text("[]", encoding="utf-8")
        probes.chmod(0o640)
    (tmp_path / "config").mkdir()
    builder = tmp_path / "venv" / "bin" / "uv"
    builder.parent.mkdir(parents=True)
    builder.write_text("#!/bin/sh\n", encoding="utf-8")
    builder.chmod(0o755)
    [command] = re.findall(r"^RUN (.*?[^\\])$", stage("wheel"), re.MULTILINE | re.DOTALL)
    subprocess.run(
        ["sh", "-e", "-c", command], cwd=tmp_path, env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
        check=True,
    )  # fmt: skip
    [(source, target)] = re.findall(
        r"^COPY --from=wheel /build/(\S*adapter\S*) (\S+)$", stage("worker-cpu-demo"), re.MULTILINE
    )
    image = tmp_path / "image"
    shutil.copytree(tmp_path / source, image / target.lstrip("/"))
    served = image / "adapters" / "demo"
    assert (served / "manifest.json").is_file()
    assert probes_path(served).is_file() == with_probes
    if with_probes:
        assert probes_path(served).stat().st_mode & 0o777 == 0o644


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def partition(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the GPU stage's own commands for packages under ``root``."""
    [command] = re.findall(r"^RUN (.*?[^\\])$", stage("packages-gpu"), re.MULTILINE | re.DOTALL)
    command = "part()" + command.partition("part()")[2]
    for folder in ("/opt/filing-clerk", "/layers"):
        command = command.replace(folder, f"{root}{folder}")
    return subprocess.run(
        ["sh", "-e", "-c", command], env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_gpu_packages_are_complete_in_their_own_layers(tmp_path: Path) -> None:
    """Each file is in one layer and each layer in the image. A large package that the lock no
    longer has ends the build instead of leaving an empty layer."""
    site = tmp_path / "opt/filing-clerk/lib/python3.11/site-packages"
    named = re.findall(r'"\$site"?/([^"\s]+)', stage("packages-gpu"))
    assert len(named) >= 8
    for name in (*named, "nvidia/cudnn/lib/x", "numpy/x", "torch-1.dist-info/RECORD", "app.pth"):
        path = site / name.replace("*", ".so.13")
        if name.endswith(("*", "x", "RECORD", "pth")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            (path / "lib").mkdir(parents=True, exist_ok=True)
            (path / "lib" / "a.so").touch()
    before = files_in(tmp_path / "opt")
    done = partition(tmp_path)
    assert done.returncode == 0, done.stderr
    layers = {made.name: made for made in (tmp_path / "layers").iterdir()}
    # The stage's paths begin at the root; here they begin below a folder.
    found = [files_in(made / str(tmp_path).lstrip("/") / "opt") for made in layers.values()]
    left = files_in(tmp_path / "opt")
    assert set().union(left, *found) == before
    assert len(left) + sum(map(len, found)) == len(before)
    assert {name.rpartition("site-packages/")[2] for name in left} == {
        "numpy/x", "torch-1.dist-info/RECORD", "app.pth",
    }  # fmt: skip
    copied = re.findall(
        r"^COPY --from=packages-gpu /layers/(\S+)/ /$", stage("worker"), re.MULTILINE
    )
    assert sorted(copied) == sorted(layers)
    assert "COPY --from=packages-gpu /opt/filing-clerk /opt/filing-clerk" in stage("worker")

    shutil.rmtree(tmp_path / "layers")
    assert partition(tmp_path).returncode != 0


def test_nothing_but_sources_reaches_the_build() -> None:
    """The build context lists what is allowed."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert not {"!.git", "!tests", "!.env"} & set(rules)


@pytest.mark.parametrize("base", ["", "python:3.13-slim-trixie"])
def test_a_pipeline_can_insist_on_a_digest(base: str) -> None:
    """With REQUIRE_DIGEST, a base that is only a tag is refused before any build."""
    done = subprocess.run(
        ["make", "images", "REQUIRE_DIGEST=1", f"BASE_IMAGE={base}", "IMAGES="],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "names no digest" in done.stdout
