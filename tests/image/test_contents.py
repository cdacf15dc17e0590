"""What is in the image, what is not, and how large it is."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.image.conftest import Kind

pytestmark = pytest.mark.timeout(600)  # of the demo's image: mark.long, by the fixture

ROOT = Path(__file__).parents[2]
LARGE = 100_000_000
"""A layer of this many bytes or more has to be explained in docs/images.md."""

Found = tuple[str, bool, bool, bool]
"""A path: whether it is a file, has the set-user-id bit, is writable by everyone."""

_WALK = """
import os, stat
for folder, folders, files in os.walk('/'):
    if folder == '/':
        folders[:] = [name for name in folders if name not in ('proc', 'sys', 'dev')]
    for name in files + folders:
        mode = os.lstat(path := os.path.join(folder, name)).st_mode
        if not name.endswith('.pyc'):
            print(int(stat.S_ISREG(mode)), int(bool(mode & stat.S_ISUID)), mode >> 1 & 1, path)
"""


def run(engine: Any, image: Any, *command: str, user: str | None = None) -> str:
    """Run a command in a container without a network; return its output."""
    container = engine.containers.run(
        image.id,
        entrypoint=list(command),
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},
        user=user,
        detach=True,
    )
    try:
        # Read after it has ended: followed output may lack its last lines.
        code = container.wait(timeout=120)["StatusCode"]
        output = container.logs(stdout=True, stderr=False).decode()
        assert code == 0, container.logs().decode()
        return str(output)
    finally:
        container.remove(force=True)


@pytest.fixture(scope="module")
def paths(engine: Any, image: Any) -> list[Found]:
    lines = run(engine, image, "python", "-c", _WALK, user="0").splitlines()
    assert len(lines) > 5_000
    split = (line.split(" ", 3) for line in lines)
    return [(path, f == "1", s == "1", w == "1") for f, s, w, path in split]


def test_it_starts_the_worker_as_nobody(image: Any) -> None:
    """User, entry point, port and labels that the chart and scanners expect."""
    config = image.attrs["Config"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["clerk-worker"]
    assert config["Cmd"] == ["run", "-c", "/etc/filing-clerk/worker.toml"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["Healthcheck"]["Test"][0] == "CMD"  # not CMD-SHELL: it needs no shell
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == project["version"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]


def test_it_has_no_compiler_or_installer(
    paths: list[Found],
) -> None:
    """No compiler, no package installer, no cache or source of the build. setuptools is there
    because ``import torch.utils.cpp_extension``, which vLLM does, needs it."""
    tools = re.compile(
        r"/s?bin/(pip\d?(\.\d+)?|uv|uvx|gcc|g\+\+|cc|c\+\+|clang|make|cmake|ninja|git|curl|wget)$"
    )
    packages = re.compile(r"/(site|dist)-packages/(pip|uv|wheel|ninja|cyclonedx)(-|$|/)")
    left = re.compile(r"^/(build|root/\.cache|var/lib/apt/lists/.|var/cache/apt/archives/.*\.deb$)")
    held = [
        path
        for path, *_ in paths
        if any(pattern.search(path) for pattern in (tools, packages, left))
    ]
    assert not [path for path in held if not path.endswith("/apt/lists/partial")]


def test_it_holds_no_secrets(image: Any, paths: list[Found]) -> None:
    """No key, no credential file, no address of a package index, no certificate of the build."""
    names = "*.key id_rsa* .netrc .pypirc pip.conf uv.toml .npmrc .git-credentials .env ca.pem"
    held = [
        path
        for path, *_ in paths
        if any(fnmatch(Path(path).name, pattern) for pattern in names.split())
    ]
    assert held == []
    history = " ".join(str(layer["CreatedBy"]) for layer in image.history())
    for word in ("INDEX", "CERTIFICATE", "PASSWORD", "TOKEN"):
        assert word not in history
    assert not [
        variable
        for variable in image.attrs["Config"]["Env"]
        if re.search("INDEX|CERT|PROXY", variable)
    ]


def test_no_file_grants_rights(paths: list[Found]) -> None:
    """Nothing we add is set-user-id or writable by everyone."""
    ours = [
        entry
        for entry in paths
        if entry[0].startswith(("/opt/", "/models", "/adapters", "/etc/fil"))
    ]
    assert len(ours) > 1_000
    assert not [path for path, is_file, suid, writable in ours if is_file and (suid or writable)]


def locked(lock: str, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Name and version of each locked package for this environment."""
    for line in (ROOT / "locks" / lock).read_text(encoding="utf-8").splitlines():
        if re.match("[a-z0-9]", line):
            requirement = Requirement(line.removesuffix("\\").strip())
            if requirement.marker is None or requirement.marker.evaluate(environment):
                (version,) = requirement.specifier
                yield canonicalize_name(requirement.name), version.version


def test_the_packages_are_the_locks_and_the_sboms(kind: Kind, engine: Any, image: Any) -> None:
    """Installed, locked and listed packages have the same versions, ours included."""
    script = (
        "import importlib.metadata, json, packaging.markers as m\n"
        "installed = {d.metadata['Name']: d.version for d in importlib.metadata.distributions()}\n"
        "print(json.dumps([m.default_environment(), installed]))"
    )
    environment, installed = json.loads(run(engine, image, "python", "-c", script))
    found = {str(canonicalize_name(name)): version for name, version in installed.items()}
    ours = found.pop("filing-clerk")
    wanted = dict(locked(kind.lock, environment))
    assert found == wanted
    bill = json.loads(run(engine, image, "cat", "/opt/app/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {
        canonicalize_name(component["name"]): component["version"]
        for component in bill["components"]
    }
    assert listed == wanted
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("filing-clerk", ours)


def test_large_layers_are_explained(kind: Kind, image: Any) -> None:
    """docs/images.md has each of our layers above 100 MB with its size, within 10 %."""
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    documented = {
        path: float(size.replace(",", ""))
        for name, path, size in re.findall(
            r"^\| `(\S+)` \| `(/\S+)` \| ([\d,]+) MB \|", page, re.MULTILINE
        )
        if name == kind.target
    }
    assert documented
    layers = [(str(layer["CreatedBy"]), int(layer["Size"])) for layer in image.history()]
    print(f"{image.attrs['Size'] / 1e6:,.0f} MB in all")
    for made_by, size in layers:
        if size < LARGE or not (copied := re.search(r"COPY .* in (\S+)|COPY .* (/\S+)", made_by)):
            continue  # the base's own layers are not COPY
        path = next(filter(None, copied.groups()))
        print(f"{size / 1e6:,.0f} MB {path}")
        assert path in documented, (
            f"{path} has {size / 1e6:,.0f} MB, which docs/images.md does not explain"
        )
        assert size / 1e6 == pytest.approx(documented[path], rel=0.1), path
