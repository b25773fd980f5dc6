"""Images made from Debian's packages, each in another way, in one OCI layout that is made once.

Owns: what is in them. The layers of one are those of the demo's image (a Debian root, a Python stack, the
oddities, the application) and what no tool writes; the others are made by dpkg and GNU tar. No layer is in
two images, since to look at it twice would show nothing new. Must not know: what they are for.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from demo.images import build_image

__all__ = ["IMAGES", "MANY", "debian_images"]

MANY: Final = 100
"""The layers of the image that has many."""

IMAGES: Final = ("small-files", "big-file", "many-layers", "oddities")

_TOOLS: Final = ("openjdk-17-jre-headless", "vim")  # which need more than a hundred packages
_HEADERS: Final = "libboost1.74-dev"  # 15 000 files
_BIG: Final = 1100 << 20
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


def debian_images(build: Path) -> Path:
    """The layout with the images, a tag each, below ``build``; made anew when they or the demo's change."""
    base = build_image(build / "demo")
    key = hashlib.sha256(Path(__file__).read_bytes() + base.name.encode()).hexdigest()[:16]
    place = build / "debian"
    place.mkdir(parents=True, exist_ok=True)
    layout = place / f"layout-{key}"
    with open(place / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layout.is_dir():
            work = place / "work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                _make(work, base)
                for old in place.glob("layout-*"):
                    shutil.rmtree(old)
                (work / "layout").rename(layout)
            finally:
                shutil.rmtree(work)
    return layout


def _make(work: Path, base: Path) -> None:
    layout = _Layout(work / "layout")
    root, stack, odd, application = layout.adopt(base)
    packages = _download(work / "packages")
    layout.image("small-files", [layout.add(_package(work, packages.pop(_HEADERS)))])
    layout.image("big-file", [layout.add(_big(work))])
    layout.image("many-layers", [layout.add(_package(work, file)) for file in [*packages.values()][:MANY]])
    layout.image("oddities", [root, stack, odd, layout.add(_odder(work)), application])
    layout.finish()


class _Layout:
    """An OCI image layout that is being made."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs/sha256"
        self._blobs.mkdir(parents=True)
        self._directory = directory
        self._manifests: list[dict[str, Any]] = []

    def adopt(self, other: Path) -> list[tuple[dict[str, Any], str]]:
        """The layers of another layout's only image."""

        def read(digest: str) -> Any:
            return json.loads((other / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes())

        (entry,) = json.loads((other / "index.json").read_bytes())["manifests"]
        manifest = read(entry["digest"])
        for layer in manifest["layers"]:
            name = layer["digest"].removeprefix("sha256:")
            os.link(other / "blobs/sha256" / name, self._blobs / name)
        diff_ids = read(manifest["config"]["digest"])["rootfs"]["diff_ids"]
        return list(zip(manifest["layers"], diff_ids, strict=True))

    def add(self, tar: Path) -> tuple[dict[str, Any], str]:
        """Compress a layer, which is gone then."""
        diff_id = _digest(tar)
        subprocess.run(["pigz", "--no-name", "-1", tar], check=True)
        packed = tar.with_name(tar.name + ".gz")
        digest = _digest(packed)
        size = packed.stat().st_size
        packed.rename(self._blobs / digest.removeprefix("sha256:"))
        return {"mediaType": _LAYER, "digest": digest, "size": size}, diff_id

    def image(self, tag: str, layers: list[tuple[dict[str, Any], str]]) -> None:
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **self._put(config)},
            "layers": [layer for layer, _ in layers],
        }
        names = {"org.opencontainers.image.ref.name": tag}
        self._manifests.append({"mediaType": _MANIFEST, **self._put(manifest), "annotations": names})

    def finish(self) -> None:
        index = {"schemaVersion": 2, "manifests": self._manifests}
        (self._directory / "index.json").write_text(json.dumps(index))
        (self._directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def _put(self, document: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


# Packages


def _closure(*packages: str) -> list[str]:
    """Packages with all that they need."""
    without = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    command = ["apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in without), *packages]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted({line for line in lines if line[:1].isalnum() and ":" not in line})


def _download(place: Path) -> dict[str, Path]:
    """The files of all packages that are used, by name in the order of names."""
    place.mkdir()
    subprocess.run(["apt-get", "--quiet=2", "update"], check=True)
    wanted = _real([*_closure(*_TOOLS), _HEADERS])
    subprocess.run(
        ["apt-get", "--quiet=2", "-oAPT::Sandbox::User=root", "download", *wanted], check=True, cwd=place
    )
    return {file.name.partition("_")[0]: file for file in sorted(place.glob("*.deb"))}


def _real(names: list[str]) -> list[str]:
    """The packages among names, some of which others only provide."""
    command = ["apt-cache", "show", "--no-all-versions", *names]
    lines = subprocess.run(command, check=False, capture_output=True, text=True).stdout.splitlines()
    return sorted({line.removeprefix("Package: ") for line in lines if line.startswith("Package: ")})


def _package(work: Path, package: Path) -> Path:
    """The tar stream that is in a package."""
    target = work / f"{package.name}.tar"
    with target.open("wb") as file:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=file)
    return target


# By hand


def _big(work: Path) -> Path:
    """One file of more than a gigabyte, in which no two megabytes are the same."""

    def content() -> Iterator[bytes]:
        noise = hashlib.shake_128(b"noise").digest(1 << 14)
        for number in range(_BIG >> 20):
            yield number.to_bytes(8, "big") * 2048 + noise * 63

    root = work / "root"
    root.mkdir()
    with (root / "big").open("wb") as stream:
        stream.writelines(content())
    target = work / "big.tar"
    subprocess.run(["tar", "--create", f"--file={target}", "-C", root, "."], check=True)
    shutil.rmtree(root)
    return target


def _odder(work: Path) -> Path:
    """What no tool puts into a layer, and tar allows."""
    target = work / "odder.tar"
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:

        def put(name: str, content: bytes | None = None, form: Any = tarfile.PAX_FORMAT, **more: Any) -> None:
            member = tarfile.TarInfo(name)
            member.mtime = 1_600_000_000
            member.mode = 0o755 if content is None else 0o644
            if content is None:
                member.type = tarfile.DIRTYPE
            for key, value in more.items():
                setattr(member, key, value)
            member.size = len(content) if content and member.isreg() else 0
            tar.format = form
            tar.addfile(member, io.BytesIO(content or b""))

        put("./")
        put("odder")
        put("odder/dotted")
        put("odder/./dotted//name", b"normalised")
        put("/odder/absolute", b"below the root all the same")
        # The same path twice: the last one counts.
        put("odder/twice", b"first", mode=0o600, uid=7)
        put("odder/twice", b"second", mode=0o640)
        put("odder/file-then-directory", b"file")
        put("odder/file-then-directory", mode=0o700)
        put("odder/file-then-directory/in it", b"x")
        put("odder/directory-then-file")
        put("odder/directory-then-file/in it", b"x")
        put("odder/directory-then-file", b"file")
        put("odder/directory-again", mode=0o700, pax_headers={"SCHILY.xattr.user.old": "1"})
        put("odder/directory-again", mode=0o711, uid=3)
        # Names.
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            deep = f"odder/long-{form}"
            put(deep)
            for _ in range(5):
                deep += "/" + "d" * 200
                put(deep, form=form)
            put(f"{deep}/{'f' * 255}", b"deep", form=form)
            put(f"odder/link-{form}", b"", form=form, type=tarfile.SYMTYPE, linkname="../" * 60 + deep)
        put("odder/" + "u" * 90)
        put("odder/" + "u" * 90 + "/" + "v" * 90, b"split", form=tarfile.USTAR_FORMAT)
        put("odder/\udcff\udcfe", b"no UTF-8", form=tarfile.GNU_FORMAT)
        put("odder/trailing-slash/")
        # Owners, modes, times.
        put("odder/huge-owner", b"x", form=tarfile.GNU_FORMAT, uid=4_000_000_000, gid=3_999_999_999)
        put("odder/huge-owner-pax", b"x", uid=4_000_000_000, gid=3_999_999_999)
        put("odder/all-bits", b"x", mode=0o7777, uid=65534)
        put("odder/all-bits-directory", mode=0o7777, gid=5)
        put("odder/before-1970", b"x", mtime=-12_345)
        put("odder/before-1970-fraction", b"x", pax_headers={"mtime": "-5.25"})
        put("odder/nanoseconds", b"x", pax_headers={"mtime": "1600000000.987654321"})
        put("odder/nanoseconds-directory", pax_headers={"mtime": "1600000000.000000001"})
        put("odder/far", b"x", form=tarfile.GNU_FORMAT, mtime=5_000_000_000)
        put("odder/symlink-time", b"", type=tarfile.SYMTYPE, linkname="x", mtime=77, uid=9, gid=10)
        # Attributes.
        attributes = {"user.text": "text", "user.empty": "", "trusted.mine": "m", "user.long": "v" * 255}
        attributes |= {"trusted.overlay.redirect": "no note to overlayfs", "user.too-long": "v" * 256}
        put("odder/attributes", b"x", pax_headers={f"SCHILY.xattr.{k}": v for k, v in attributes.items()})
        put("odder/zero", b"", type=tarfile.CHRTYPE)
        # Links: to what came before, across directories, of links, of special files.
        put("odder/original", b"three names", mode=0o4755)
        put("odder/sub")
        for name in ("odder/second", "odder/sub/third"):
            put(name, b"", type=tarfile.LNKTYPE, linkname="odder/original")
        put("odder/symlink", b"", type=tarfile.SYMTYPE, linkname="original")
        put("odder/symlink-hard", b"", type=tarfile.LNKTYPE, linkname="odder/symlink")
        put("odder/pipe", b"", type=tarfile.FIFOTYPE, mode=0o622)
        put("odder/pipe-hard", b"", type=tarfile.LNKTYPE, linkname="./odder/pipe")
        put("odder/device", b"", type=tarfile.BLKTYPE, devmajor=259, devminor=300, mode=0o660, gid=6)
        put("odder/replaced-original", b"old")
        put("odder/replaced-link", b"", type=tarfile.LNKTYPE, linkname="odder/replaced-original")
        put("odder/replaced-original", b"new")
        # Below a symbolic link: where that points to.
        put("odder/real")
        put("odder/way", b"", type=tarfile.SYMTYPE, linkname="real")
        put("odder/way/through", b"in odder/real")
        put("odder/out", b"", type=tarfile.SYMTYPE, linkname="../../../odder/real")
        put("odder/out/again", b"in odder/real, too")
        # Deletions: of nothing, of what the same layer brings, of what is below.
        put("odder/.wh.never-was", b"")
        put("odder/kept", b"made before it is said to be gone")
        put("odder/.wh.kept", b"")
        put("odd")
        put("odd/.wh.links", b"")
        put("odd/modes")
        put("odd/modes/.wh..wh..opq", b"")
        put("odd/modes/after the mark", b"x")
        put("odd/other", mode=0o750, uid=11)
        # Directories of layers below, of which this one says nothing.
        put("tmp/in it", b"x")
        put("odd/times/now", b"replaced", pax_headers={"mtime": "1600000000.5"})
    return target
