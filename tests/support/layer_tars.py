"""Layers as tar streams."""

import io
import tarfile

__all__ = ["tar_of"]


def tar_of(*members: tuple[str, bytes | None], **more: tarfile.TarInfo) -> bytes:
    """A layer: a name ending with a slash is a directory; other contents are files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime, info.mode = 1_700_000_000, 0o644
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        for info in more.values():
            tar.addfile(info)
    return out.getvalue()
