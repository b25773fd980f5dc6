"""Says everything that a container sees of its root file system, one JSON object per entry.

Runs inside of containers, so it uses nothing but the standard library; given a directory, it looks at that
instead of a container's root. Stays on the root's file system. The
size of a directory and its link count belong to the file system that it lies on, not to the image: they
are left out, and so are the times of the root directory, which is made anew for every container.
"""

import hashlib
import json
import os
import stat
import sys
from typing import Any

# Docker writes these for each container, or the kernel does.
OWN = {
    b"/.dockerenv",
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/resolv.conf",
    b"/etc/mtab",
    b"/dev",
    b"/proc",
    b"/sys",
}


def entry(path: bytes, status: os.stat_result, groups: dict[tuple[int, int], bytes]) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "path": path.hex(),
        "shown": path.decode("utf-8", "replace"),
        "mode": oct(status.st_mode),
        "owner": [status.st_uid, status.st_gid],
        "mtime_ns": status.st_mtime_ns,
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False).hex()
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        },
    }
    if not stat.S_ISDIR(status.st_mode):
        seen["size"] = status.st_size
        seen["links"] = status.st_nlink
        seen["same_as"] = (
            groups.setdefault((status.st_dev, status.st_ino), path).hex() if status.st_nlink > 1 else ""
        )
    if stat.S_ISLNK(status.st_mode):
        seen["target"] = os.readlink(path).hex()
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        seen["device"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            seen["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return seen


def walk(path: bytes, device: int, groups: dict[tuple[int, int], bytes]) -> None:
    status = os.lstat(path)
    if path in OWN or (status.st_dev != device and stat.S_ISDIR(status.st_mode)):
        return
    seen = entry(path, status, groups)
    if OWN and path in (b"/", b"/etc"):
        del seen["mtime_ns"]  # Docker makes its own files in it
    print(json.dumps(seen))
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(path)):
            walk(os.path.join(path, name), device, groups)


if __name__ == "__main__":
    sys.setrecursionlimit(5000)
    if len(sys.argv) > 1:
        OWN.clear()
        os.chroot(sys.argv[1])
    walk(b"/", os.lstat(b"/").st_dev, {})
