"""What the walker says of the demo's image in two containers, compared.

Owns: which differences do not count, and what of the image makes it worth comparing. Must not know: engines.
"""

import json
from typing import Any

from tests.support.project import PROJECT

__all__ = ["WALKER", "check_oddities", "differences", "entries"]

WALKER = (PROJECT / "tests/support/walker.py").read_bytes()
"""The program, for the standard input of a Python in a container."""


def entries(output: str | bytes) -> dict[str, Any]:
    """All that the walker saw, by path."""
    found = [json.loads(line) for line in output.splitlines()]
    return {entry["path"]: entry for entry in found}


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    if not any("" in entry["xattrs"].values() for entry in left.values()):
        # Docker before 26 leaves out attributes with empty values; we keep them, as it does since.
        right = {path: {**entry, "xattrs": _with_value(entry["xattrs"])} for path, entry in right.items()}
    found = [f"only left: {left[path]['shown']!r}" for path in left.keys() - right.keys()]
    found += [f"only right: {right[path]['shown']!r}" for path in right.keys() - left.keys()]
    for path in left.keys() & right.keys():
        if left[path] != right[path]:
            keys = [key for key in left[path] if left[path].get(key) != right[path].get(key)]
            values = {key: (left[path].get(key), right[path].get(key)) for key in keys}
            found.append(f"{left[path]['shown']!r}: {values}")
    return sorted(found)


def _with_value(xattrs: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in xattrs.items() if value}


def check_oddities(seen: dict[str, Any]) -> None:
    """The tree is worth comparing: the oddities are there, and what they delete is not."""
    shown = {entry["shown"] for entry in seen.values()}
    assert len(seen) > 10_000
    assert "/odd/modes/capable" in shown
    assert "/etc/debian_version" not in shown
    assert {name for name in shown if name.startswith("/usr/share/base-files")} == {
        "/usr/share/base-files",
        "/usr/share/base-files/only",
    }
    assert seen[b"/odd/modes/capable".hex()]["xattrs"].keys() >= {"security.capability", "user.comment"}
    assert seen[b"/odd/other/three".hex()]["links"] == 3
