"""A worker in a container with a cluster's restrictions."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

# /bin/sh stays: vLLM's CPU engine runs lscpu through it.
_SHELLS = ("/usr/bin/bash",)


class Contained:
    """A running container: read-only root, no capabilities, no bash, its own network."""

    def __init__(
        self,
        image: str,
        network: Network | None,
        settings: Mapping[str, str],
        *,
        command: str | None = None,
        mounts: Mapping[str, str] | None = None,
    ) -> None:
        """``settings`` are environment variables, ``mounts`` folders of this machine."""
        self._made = (
            DockerContainer(image)
            .with_envs(**settings)
            .with_tmpfs_mount("/tmp")
            .with_tmpfs_mount("/var/cache/filing-clerk", "size=2g,uid=10001,gid=10001")
            .with_kwargs(
                read_only=True,
                shm_size="256m",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                mounts=[_nothing_at(shell) for shell in _SHELLS],
                **({} if network else {"network_mode": "none"}),
            )
        )
        for path, to in (mounts or {}).items():
            self._made.with_volume_mapping(path, to, "ro")
        if network is not None:
            self._made.with_network(network)
        if command is not None:
            self._made.with_command(command)
        self._made.start()
        self.container: Any = self._made.get_wrapped_container()

    def address(self) -> str:
        self.container.reload()
        (network,) = self.container.attrs["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def ask(self, path: str) -> tuple[int, str]:
        """GET a path of its HTTP server; status 0 without an answer."""
        try:
            with urllib.request.urlopen(
                f"http://{self.address()}:8080{path}", timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def run(self, *command: str) -> str:
        """Run a command in it and return its output. Asserts that it exits 0."""
        code, output = self.container.exec_run(list(command))
        assert code == 0, output.decode()
        return str(output.decode())

    def wait_for(self, reached: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something holds, while the container runs."""
        until = time.monotonic() + timeout_s
        while not reached():
            self.container.reload()
            assert self.container.status == "running", self.output()
            assert time.monotonic() < until, self.output()
            time.sleep(0.5)

    def ended(self, timeout_s: float) -> int:
        return int(self.container.wait(timeout=timeout_s)["StatusCode"])

    def output(self) -> str:
        return str(self.container.logs().decode())

    def events(self) -> list[str]:
        """Events of its JSON log lines."""
        return [
            json.loads(line)["event"] for line in self.output().splitlines() if line.startswith("{")
        ]

    def remove(self) -> None:
        self._made.stop()


def _nothing_at(path: str) -> dict[str, Any]:
    return {"Target": path, "Source": "/dev/null", "Type": "bind", "ReadOnly": True}
