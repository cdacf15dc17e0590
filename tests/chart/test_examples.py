"""Each example, used as its header says: linted, packaged, rendered for three Kubernetes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chart.references import SECURED, broken
from tests.chart.render import (
    CHART,
    EXAMPLE_FILES,
    ROOT,
    Document,
    Refused,
    helm,
    pods,
    render,
)
from worker import errors

VERSIONS = ("1.29.0", "1.33.0", "1.36.0")
# What the examples say that users bring themselves.
BROUGHT = frozenset({
    "models", "adapters", "kafka-login", "kafka-ca", "kafka-client", "model-store",
    "desk-database", "desk-oidc", "desk-tls",
})  # fmt: skip

each_example = pytest.mark.parametrize("example", EXAMPLE_FILES, ids=lambda path: path.stem)


def rendered(example: Path, version: str = "1.36.0") -> list[Document]:
    return render(None, example, kube_version=version)


@each_example
def test_an_example_passes_the_strict_linter(example: Path) -> None:
    done = helm("lint", "--strict", str(CHART), "-f", str(example))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "These values do not work" not in done.stderr


@each_example
@pytest.mark.parametrize("version", VERSIONS)
def test_every_reference_in_an_example_exists(example: Path, version: str) -> None:
    """Selectors match labels; objects and ports that are referred to exist; names are legal."""
    if example.stem == "air-gapped" and version == "1.29.0":
        with pytest.raises(Refused, match=r"volume\.image needs Kubernetes 1\.33"):
            rendered(example, version)
        return
    assert list(broken(rendered(example, version), BROUGHT)) == []


@each_example
def test_an_example_passes_the_restricted_pod_security_level(example: Path) -> None:
    found = list(pods(rendered(example)))
    assert found
    for pod in found:
        assert not pod.spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, pod.name
        assert pod.spec["automountServiceAccountToken"] is False, pod.name
        assert pod.spec["enableServiceLinks"] is False, pod.name
        for container in pod.containers:
            assert SECURED.items() <= container["securityContext"].items(), pod.name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), pod.name
            assert "memory" in container["resources"]["limits"], pod.name


def test_the_packaged_chart_renders_like_the_folder(tmp_path: Path) -> None:
    """`helm package` includes every file that the templates read."""
    done = helm("package", str(CHART), "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (packed,) = tmp_path.glob("*.tgz")
    for example in EXAMPLE_FILES:
        assert render(None, example, chart=packed) == rendered(example)


@each_example
def test_an_examples_header_has_its_install_command(example: Path) -> None:
    header = example.read_text(encoding="utf-8").partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "helm install" in header
    for path in re.findall(r"(?:helm|config)/[\w./-]+", header):
        assert (ROOT / path).exists(), path


def test_the_notes_without_autoscaling() -> None:
    """--reset-then-reuse-values keeps the new chart's defaults, which --reuse-values would drop;
    and all exit codes are named."""
    demo = CHART / "examples" / "cpu-demo.yaml"
    done = helm(
        "install", "clerk", str(CHART), "-n", "support", "-f", str(demo), "--dry-run=client"
    )
    notes = done.stdout.partition("NOTES:")[2]
    assert "--reset-then-reuse-values --set replicaCount=2" in notes
    assert " --reuse-values" not in notes
    assert "as the group support.clerk-filing-clerk" in notes
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {str(code) for code in codes} <= set(re.findall(r"\b\d+\b", notes))
