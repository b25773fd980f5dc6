"""What has changed in a tree since the last call, as a layer.

Owns: comparing, and whiteouts for what is gone (OCI image specification, layer.md). It runs inside
mmdebstrap, as a program: ``snapshot.py ROOT WORK NAME``. Must not know: what changes the tree.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["TAR_OPTIONS", "snapshot_layer"]

TAR_OPTIONS = (
    "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse",
    "--pax-option=delete=atime,delete=ctime",
)  # fmt: skip


def snapshot_layer(root: Path, work: Path, name: str) -> None:
    """Write what has changed below ``root`` since the last call as a layer."""
    state = work / "state.json"
    before: dict[str, list[int]] = json.loads(state.read_text()) if state.exists() else {}
    after: dict[str, list[int]] = {}
    changed: list[str] = []
    for directory, directories, files in os.walk(root):
        inside = os.path.relpath(directory, root)
        if inside in ("proc", "sys", "dev", "var/cache/apt", "var/lib/apt/lists"):
            directories.clear()
            files.clear()
        for entry in (".", *files, *(d for d in directories if os.path.islink(os.path.join(directory, d)))):
            path = os.path.normpath(os.path.join(inside, entry))
            status = os.lstat(root / path)
            after[path] = [status.st_ino, status.st_ctime_ns, status.st_mode]
            if before.get(path) != after[path]:
                changed.append(path)
    marks = work / "marks"
    shutil.rmtree(marks, ignore_errors=True)
    marks.mkdir()
    deleted = [path for path in before if path not in after and (os.path.dirname(path) or ".") in after]
    for path in deleted:
        mark = marks / os.path.dirname(path) / f".wh.{os.path.basename(path)}"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    tar = ["tar", "--create", f"--file={work / name}", *TAR_OPTIONS, "--no-recursion", "--null"]
    tar += [f"--directory={root}", "--verbatim-files-from", "--files-from=-"]
    parents = {str(parent) for path in changed for parent in Path(path).parents}
    names = b"\0".join(os.fsencode(path) for path in sorted(parents.union(changed)))
    # 1 means that a directory changed in the meantime: /proc and /sys always do.
    if subprocess.run(tar, input=names, check=False).returncode not in (0, 1):
        sys.exit(f"tar could not write {name}")
    if deleted:
        made = [os.path.relpath(path, marks) for path in sorted(marks.rglob(".wh.*"))]
        subprocess.run(
            ["tar", "--append", f"--file={work / name}", *TAR_OPTIONS, f"--directory={marks}", "--", *made],
            check=True,
        )
    shutil.rmtree(marks)
    state.write_text(json.dumps(after))


if __name__ == "__main__":
    snapshot_layer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
