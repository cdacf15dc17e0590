"""Push an adapter into an OCI registry: for image volumes, and for what reads CNCF's ModelPack.

Two manifests, under their digests' names, so that no tag ever moves: a reference in Git is the
pointer. The image has the files in one layer, for the image volumes of containerd and CRI-O. The
artifact has a layer for each file, with the media types of ModelPack
(github.com/modelpack/model-spec, 0.0.7), which containerd (2.4) cannot mount. Both depend on the
adapter alone: pushed again, they have the same digests.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from worker.contract import MANIFEST_NAME, Manifest
from worker.contract.digest import canonical_json, sha256_bytes

_MODEL = "application/vnd.cncf.model"
_IMAGE = "application/vnd.oci.image"
_WEIGHTS = (".safetensors", ".onnx")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Pushed:
    """References by digest: ``image`` for image volumes, ``artifact`` in ModelPack's format."""

    image: str
    artifact: str


def push(adapter: Path, manifest: Manifest, name: str) -> Pushed:
    """Push an adapter's files to the repository ``name`` (REGISTRY/NAME), with the login of
    Docker's configuration file. Raises BadInput."""
    if manifest.stages:
        raise BadInput("--oci: a cascade is several adapters: push each of its stages")
    try:
        import requests
        from oras.auth import AuthenticationException
        from oras.client import OrasClient
    except ImportError:
        raise BadInput("--oci needs the extra oci: pip install 'filing-clerk[oci]'") from None
    host, _, repository = name.partition("/")
    if not repository or "@" in name or ":" in repository:
        raise BadInput(f"--oci {name}: give REGISTRY/NAME, without a tag or digest")
    client = OrasClient(insecure=host.rpartition(":")[0] in _LOOPBACK or host in _LOOPBACK)
    files = [adapter / file for file in sorted((*manifest.files, MANIFEST_NAME))]
    annotations = {
        "org.opencontainers.image.title": manifest.name,
        "org.opencontainers.image.version": manifest.digest,
    }
    try:
        # The client asks a registry that does not answer for minutes.
        requests.get(f"{client.prefix}://{host}/v2/", timeout=10)
        with tempfile.TemporaryDirectory() as folder:
            repo = _Repository(client, name, Path(folder), annotations)
            return Pushed(repo.push_image(files), repo.push_artifact(files, manifest))
    except (OSError, ValueError, AuthenticationException) as error:
        raise BadInput(f"--oci {name}: {str(error)[:400]}: nothing was published") from error


class _Repository:
    def __init__(self, client: Any, name: str, scratch: Path, annotations: Mapping[str, str]):
        self._client = client
        self._name = name
        self._scratch = scratch
        self._annotations = annotations
        self._container = client.get_container(name)
        client.auth.load_configs(self._container)

    def push_image(self, files: Sequence[Path]) -> str:
        layer = self._scratch / "layer.tar"
        with tarfile.open(layer, "w", format=tarfile.USTAR_FORMAT) as archive:
            for path in files:
                entry = tarfile.TarInfo(path.name)  # of no time and no owner
                entry.size, entry.mode = path.stat().st_size, 0o444
                with path.open("rb") as file:
                    archive.addfile(entry, file)
        blob = self._upload(layer, f"{_IMAGE}.layer.v1.tar")
        # The platform is not asked for where a reference names one manifest.
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [blob["digest"]]},
        }
        return self._push(self._small(config, f"{_IMAGE}.config.v1+json"), [blob])

    def push_artifact(self, files: Sequence[Path], manifest: Manifest) -> str:
        layers = []
        for path in files:
            kind = "weight" if path.suffix in _WEIGHTS else "weight.config"
            blob = self._upload(path, f"{_MODEL}.{kind}.v1.raw")
            names = ("org.cncf.model.filepath", "org.opencontainers.image.title")
            layers.append({**blob, "annotations": dict.fromkeys(names, path.name)})
        config = {
            "descriptor": {"name": manifest.name, "version": manifest.digest},
            "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
            "config": {"format": "safetensors" if manifest.needs_base else "onnx"},
        }
        return self._push(
            self._small(config, f"{_MODEL}.config.v1+json"),
            layers,
            artifactType=f"{_MODEL}.manifest.v1+json",
        )

    def _small(self, value: object, media_type: str) -> dict[str, Any]:
        path = self._scratch / "config.json"
        path.write_bytes(canonical_json(value))
        return self._upload(path, media_type)

    def _upload(self, path: Path, media_type: str) -> dict[str, Any]:
        from oras.oci import NewLayer

        blob: dict[str, Any] = NewLayer(str(path), media_type=media_type)
        self._answered(self._client.upload_blob(str(path), self._container, blob))
        return blob

    def _push(self, config: object, layers: Sequence[object], **more: str) -> str:
        """Push a manifest; return the reference by its digest."""
        media_type = f"{_IMAGE}.manifest.v1+json"
        data = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": media_type,
                **more,
                "config": config,
                "layers": layers,
                "annotations": self._annotations,
            }
        )
        digest = sha256_bytes(data)
        # A tag too, because registries delete manifests without one.
        tagged = self._client.get_container(f"{self._name}:{digest}")
        url = f"{self._client.prefix}://{tagged.manifest_url()}"
        headers = {"Content-Type": media_type}
        self._answered(self._client.do_request(url, "PUT", headers=headers, data=data))
        return f"{self._name}@sha256:{digest}"

    def _answered(self, answer: Any) -> None:
        if answer.status_code not in {200, 201, 202}:
            said = json.dumps(answer.text[:200])
            raise ValueError(f"the registry answered {answer.status_code} {answer.reason}: {said}")
