"""A one-node Kubernetes on this machine, for CI: `python -m tests.cluster.node up FOLDER`.

No images are pulled: etcd and Kubernetes are built from their Go modules (some minutes on two
cores, once; kept in the user's cache folder), containerd, runc and the network plugins are
Debian's. Needs root, Go 1.26 and gcc. It listens only on loopback and on the pods' bridge. No DNS
and no kube-proxy: pods are reached by their own addresses. Not needed where there is a cluster
(kind, k3d).

up FOLDER        build, start, and print what to export
load FOLDER TAR  load an image of `docker save` into the node; -: from standard input
down FOLDER      stop all of it
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

KUBERNETES, ETCD = "1.36.3", "3.7.3"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "filing-clerk"
BIN = CACHE / f"kubernetes-{KUBERNETES}-etcd-{ETCD}"
PACKAGES = ("containerd", "runc", "containernetworking-plugins", "iptables", "conntrack", "openssl")
SOCKET = "/run/filing-clerk-containerd.sock"
PAUSE = "docker.io/library/filing-clerk-pause:1"
POD_NETWORK, BRIDGE = "10.244.0.0/24", "clerk0"
_FROM_POD_TO_POD = ("-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT")
API, ETCD_CLIENT, ETCD_PEER = 16443, 23790, 23800

GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")

_PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
# They run for minutes: compiling with optimizations would cost more than it saves.
_QUICK = ("-gcflags=all=-N -l -dwarf=false",)
_VERSION = "k8s.io/component-base/version"
_ETCD_MAIN = """package main

import (
\t"os"

\t"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""
_PAUSE_MAIN = """#include <signal.h>
#include <unistd.h>
static void leave(int number) { _exit(number - number); }
int main(void) { signal(SIGTERM, leave); signal(SIGINT, leave); for (;;) pause(); }
"""


def build() -> None:
    """Build the programs that are missing from the cache."""
    if all((BIN / name).exists() for name in (*_PARTS, "etcd")):
        return
    if GO is None:
        sys.exit("no Go to build Kubernetes with: install it, or name a cluster in KUBECONFIG")
    BIN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        _build_etcd(Path(name) / "etcd")
        _build_kubernetes(Path(name) / "kubernetes")


def _build_etcd(folder: Path) -> None:
    folder.mkdir()
    (folder / "main.go").write_text(_ETCD_MAIN)
    _go(folder, "mod", "init", "local/etcd")
    _go(folder, "get", f"go.etcd.io/etcd/server/v3@v{ETCD}")
    _go(folder, "mod", "tidy")
    _go(folder, "build", *_QUICK, "-o", str(BIN / "etcd"), ".")


def _build_kubernetes(folder: Path) -> None:
    """Kubernetes' go.mod replaces its published parts by a neighbouring folder, which the module
    does not contain. They are taken in the version published with it."""
    folder.mkdir()
    _go(folder, "mod", "init", "local/kubernetes")
    module = _go(folder, "mod", "download", "-json", f"k8s.io/kubernetes@v{KUBERNETES}")
    staged = json.loads(_go(folder, "mod", "edit", "-json", json.loads(module)["GoMod"]))["Replace"]
    names = [
        replacement["Old"]["Path"]
        for replacement in staged
        if replacement["New"]["Path"].startswith("./staging")
    ]
    version = "v0." + KUBERNETES.partition(".")[2]
    _go(folder, "mod", "edit", *(f"-replace={name}={name}@{version}" for name in names))
    _go(folder, "get", f"k8s.io/kubernetes@v{KUBERNETES}")
    # Built from a module it does not know its own version, which charts ask for.
    major, minor, _ = KUBERNETES.split(".")
    known = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X {_VERSION}.{name}={value}" for name, value in known.items())
    packages = [f"k8s.io/kubernetes/cmd/{name}" for name in _PARTS]
    _go(folder, "build", *_QUICK, "-ldflags", f"-s -w {flags}", "-o", f"{BIN}/", *packages)


def _go(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GOFLAGS": "-mod=mod"}
    return _run(str(GO), *arguments, cwd=folder, env=environment)


class Node:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"

    def up(self) -> None:
        """Start everything and wait until the node is ready. Raises RuntimeError if it does not
        get ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_files()
        # Docker, where it runs too, makes the kernel drop traffic between pods.
        _run("iptables", "--insert", "FORWARD", *_FROM_POD_TO_POD)
        self._start("containerd", f"--config={self.folder / 'containerd.toml'}")
        self._start("etcd", *self._etcd())
        self._start("kube-apiserver", *self._api_server())
        self._await("the API server", lambda: self.kubectl("get", "--raw", "/readyz"))
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--horizontal-pod-autoscaler-sync-period=5s",
        )
        self._start("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false")
        self._await("containerd", lambda: self._ctr("version"))
        self._load_pause()
        self._start(
            "kubelet",
            f"--config={self.folder / 'kubelet.json'}",
            f"--kubeconfig={self.kubeconfig}",
            "--hostname-override=node",
            f"--root-dir={self.folder / 'kubelet'}",
        )
        ready = '-o=jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
        self._await("the node", lambda: self.kubectl("get", "nodes", ready) == "True")
        account = ("get", "serviceaccount", "default")
        self._await("the default service account", lambda: self.kubectl(*account))

    def load(self, archive: str) -> None:
        self._ctr("--namespace=k8s.io", "images", "import", archive)

    def down(self) -> None:
        """Stop everything, pods included, and remove mounts and bridge."""
        for name in ("kubelet", "kube-scheduler", "kube-controller-manager", "kube-apiserver"):
            self._stop(name)
        self._stop("etcd")
        if (self.folder / "containerd.pid").exists():
            for task in self._ctr("--namespace=k8s.io", "tasks", "list", "--quiet").split():
                self._ctr("--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", task, ok=True)
            time.sleep(1)
            self._stop("containerd")
        _run("iptables", "--delete", "FORWARD", *_FROM_POD_TO_POD, ok=True)
        _run("ip", "link", "delete", BRIDGE, ok=True)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted(mounts, reverse=True):
            if mount.startswith(f"{self.folder}/"):
                _run("umount", "--lazy", mount, ok=True)

    def kubectl(self, *arguments: str) -> str:
        return _run(str(BIN / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments)

    def _etcd(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{ETCD_CLIENT}", f"http://127.0.0.1:{ETCD_PEER}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",
        ]

    def _api_server(self) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{ETCD_CLIENT}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={API}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--service-account-key-file={self.folder / 'accounts.pub'}",
            f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=Hostname",
        ]

    def _write_files(self) -> None:
        folder = self.folder
        _run("openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048")
        key, public = str(folder / "accounts.key"), str(folder / "accounts.pub")
        _run("openssl", "rsa", "-in", key, "-pubout", "-out", public)
        token = secrets.token_hex(16)
        self._write("tokens.csv", f'{token},admin,admin,"system:masters"\n')
        (folder / "tokens.csv").chmod(0o600)
        self._write("kubeconfig", json.dumps(_kubeconfig(token)))
        self.kubeconfig.chmod(0o600)
        self._write("kubelet.json", json.dumps(_kubelet()))
        self._write("containerd.toml", _containerd(folder))
        (folder / "network").mkdir(exist_ok=True)
        self._write("network/10-pods.conflist", json.dumps(_network()))
        hosts = Path("/etc/hosts")
        if "127.0.0.1 node\n" not in hosts.read_text():  # the API server calls the kubelet by name
            with hosts.open("a") as file:
                file.write("127.0.0.1 node\n")

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def _start(self, name: str, *arguments: str) -> None:
        program = shutil.which(name) if name == "containerd" else str(BIN / name)
        assert program is not None
        with (self.folder / f"{name}.log").open("wb") as log:
            started = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._write(f"{name}.pid", str(started.pid))

    def _stop(self, name: str) -> None:
        file = self.folder / f"{name}.pid"
        if not file.exists():
            return
        pid = int(file.read_text())
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
                for _ in range(100):
                    os.kill(pid, 0)
                    time.sleep(0.1)
            except ProcessLookupError:
                break
        file.unlink()

    def _await(self, what: str, there: Callable[[], object]) -> None:
        until = time.monotonic() + 120
        while True:
            try:
                if there():
                    return
            except subprocess.CalledProcessError:
                pass
            if time.monotonic() > until:
                raise RuntimeError(f"{what} did not come up: see {self.folder}/*.log")
            time.sleep(0.5)

    def _ctr(self, *arguments: str, ok: bool = False) -> str:
        return _run("ctr", f"--address={SOCKET}", *arguments, ok=ok)

    def _load_pause(self) -> None:
        """The program that keeps a pod's namespaces, as an image of one static file."""
        source = self.folder / "pause.c"
        source.write_text(_PAUSE_MAIN)
        _run("gcc", "-static", "-O2", "-o", str(self.folder / "pause"), str(source))
        archive = self.folder / "pause.tar"
        archive.write_bytes(_image(PAUSE.removeprefix("docker.io/library/"), self.folder / "pause"))
        self.load(str(archive))


def _kubeconfig(token: str) -> object:
    server = {"server": f"https://127.0.0.1:{API}", "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "admin"}}],
        "current-context": "node",
    }


def _kubelet() -> object:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,  # never: loaded images could not be pulled again
        "evictionHard": {"nodefs.available": "256Mi", "imagefs.available": "256Mi"},
        "evictionPressureTransitionPeriod": "0s",
        "resolvConf": "/etc/resolv.conf",
    }


def _network() -> object:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_NETWORK}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{**bridge, "ipam": addresses}]}


def _containerd(folder: Path) -> str:
    runtimes = '[plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
address = "{SOCKET}"
{runtimes}]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
{runtimes}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/network"
{runtimes}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def _image(name: str, program: Path) -> bytes:
    """A docker-archive with one layer that holds one program."""
    layer = _tar({program.name: program.read_bytes()})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
        }
    ).encode()
    file = f"{sha256(config).hexdigest()}.json"
    manifest = [{"Config": file, "RepoTags": [name], "Layers": ["layer.tar"]}]
    return _tar({file: config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()})


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _run(
    program: str,
    *arguments: str,
    ok: bool = False,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    done = subprocess.run(
        [program, *arguments], check=False, cwd=cwd, env=env, capture_output=True, text=True
    )
    if done.returncode and not ok:
        raise subprocess.CalledProcessError(
            done.returncode, [program, *arguments], done.stdout, done.stderr
        )
    return done.stdout.strip()


def install() -> None:
    """Install missing Debian packages."""
    if Path("/usr/lib/cni/bridge").exists() and all(
        shutil.which(program)
        for program in ("containerd", "runc", "iptables", "conntrack", "openssl")
    ):
        return
    _run("apt-get", "update", "-qq")
    options = ("install", "-qq", "-y", "--no-install-recommends")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run("apt-get", *options, *PACKAGES, env=environment)


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["build"]:
            build()
        case ["up", folder]:
            install()
            build()
            node = Node(Path(folder).resolve())
            node.up()
            print(f"export KUBECONFIG={node.kubeconfig} PATH={BIN}:$PATH")
        case ["load", folder, archive]:
            Node(Path(folder).resolve()).load(archive)
        case ["down", folder]:
            Node(Path(folder).resolve()).down()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{' '.join(map(str, failed.cmd))}: {failed.stderr.strip()[-2000:]}")
