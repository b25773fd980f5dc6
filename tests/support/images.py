"""Images made by hand: layers as tar streams, whole images as OCI layouts that skopeo can copy anywhere."""

import gzip
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

__all__ = ["CONFIG", "TestLayer", "push", "skopeo", "write_layout"]

CONFIG: dict[str, Any] = {
    "Env": ["PATH=/bin", "GREETING=grüß dich"],
    "Entrypoint": ["/bin/app"],
    "Cmd": ["--help"],
    "User": "1000:1000",
    "WorkingDir": "/srv",
    "Volumes": {"/data": {}},
    "Labels": {"who": "tests"},
    "ExposedPorts": {"80/tcp": {}},
    "StopSignal": "SIGINT",
}
"""A configuration with something of everything that has to survive."""


@dataclass(frozen=True)
class TestLayer:
    """A layer and how its blob is compressed: ``gzip``, ``zstd`` or ``plain``."""

    __test__ = False

    tar: bytes
    compression: str = "gzip"
    media_type: str = ""

    @property
    def blob(self) -> bytes:
        if self.compression == "gzip":
            return gzip.compress(self.tar, mtime=0)
        if self.compression == "zstd":
            return zstandard.compress(self.tar)
        return self.tar

    @property
    def kind(self) -> str:
        base = "application/vnd.oci.image.layer.v1.tar"
        return self.media_type or {"plain": base}.get(self.compression, f"{base}+{self.compression}")

    @property
    def diff_id(self) -> str:
        return _digest(self.tar)

    @property
    def digest(self) -> str:
        return _digest(self.blob)


@dataclass(frozen=True)
class _Layout:
    directory: Path
    descriptors: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes) -> str:
        digest = _digest(data)
        folder = self.directory / "blobs/sha256"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / digest[7:]).write_bytes(data)
        return digest


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_layout(
    directory: Path,
    layers: Sequence[TestLayer],
    *,
    tag: str = "latest",
    architecture: str = "amd64",
    variant: str = "",
    config: Mapping[str, Any] = CONFIG,
    members: Mapping[str, Any] | None = None,
) -> str:
    """Add an image to the OCI layout in ``directory``; returns its manifest's digest."""
    layout = _Layout(directory)
    document = {
        "architecture": architecture,
        "os": "linux",
        **({"variant": variant} if variant else {}),
        "created": "2024-01-02T03:04:05Z",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": f"step {number}"} for number in range(len(layers))],
        **(members or {}),
    }
    raw = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": layout.blob(raw),
            "size": len(raw),
        },
        "layers": [
            {"mediaType": layer.kind, "digest": layout.blob(layer.blob), "size": len(layer.blob)}
            for layer in layers
        ],
        "annotations": {"made.by": "tests"},
    }
    data = json.dumps(manifest).encode()
    digest = layout.blob(data)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index_file = directory / "index.json"
    index: dict[str, Any] = (
        json.loads(index_file.read_text())
        if index_file.exists()
        else {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    )
    platform = {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {})}
    index["manifests"].append(
        {
            "mediaType": manifest["mediaType"],
            "digest": digest,
            "size": len(data),
            "platform": platform,
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }
    )
    index_file.write_text(json.dumps(index))
    return digest


def skopeo(*arguments: str) -> bytes:
    """Run skopeo, which checks whatever it copies."""
    done = subprocess.run(["skopeo", *arguments], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def push(layout: Path, reference: str, *options: str, tag: str = "latest") -> None:
    """Copy an image from a layout to a registry without TLS."""
    skopeo(
        "copy",
        "--quiet",
        "--insecure-policy",
        "--dest-tls-verify=false",
        *options,
        f"oci:{layout}:{tag}",
        f"docker://{reference}",
    )
