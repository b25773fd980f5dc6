"""Tar streams, as layers are."""

import io
import tarfile
from collections.abc import Mapping

__all__ = ["Content", "tar_of"]

Content = bytes | str | tarfile.TarInfo | None
"""A file's bytes, a symbolic link's target, a whole header, or None for a directory."""


def tar_of(
    *members: Mapping[str, Content] | tuple[str, Content] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar stream of names with their contents, and of headers, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            for name, content in member.items() if isinstance(member, Mapping) else (member,):
                if isinstance(content, tarfile.TarInfo):
                    tar.addfile(content)
                    continue
                info = tarfile.TarInfo(name)
                info.mtime, info.mode = 1_700_000_000, 0o755
                if isinstance(content, bytes):
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                    continue
                info.type = tarfile.DIRTYPE if content is None else tarfile.SYMTYPE
                info.linkname = content or ""
                tar.addfile(info)
    return out.getvalue()
