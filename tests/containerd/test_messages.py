"""Our description of the service's messages is that of containerd's own protocol files."""

import re
from pathlib import Path

import pytest

from cvmfs_graphdriver.snapshotter.messages import message, message_names
from demo.installation import Installation

pytestmark = pytest.mark.docker

_API = "usr/share/gocode/src/github.com/containerd/containerd/api"
_FILES = ("services/snapshots/v1/snapshots.proto", "types/mount.proto")
_FIELD = re.compile(r"^\s*(repeated )?(map<string,\s*string>|[\w.]+) (\w+)\s+=\s+(\d+);", re.MULTILINE)
_LEFT_OUT = {("CommitSnapshotRequest", "parent")}  # of the capability ``rebase``

Fields = dict[tuple[str, str], tuple[int, str, bool]]


def theirs(root: Path) -> Fields:
    found: Fields = {}
    for file in _FILES:
        text = re.sub(r"//.*", "", (root / _API / file).read_text())
        for name, body in re.findall(r"^message (\w+)\s*\{(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            for repeated, kind, field, number in _FIELD.findall(body):
                is_map = kind.startswith("map")
                short = f"{field.capitalize()}Entry" if is_map else kind.rpartition(".")[2]
                found[name, field] = int(number), short, bool(repeated) or is_map
    return found


def ours() -> Fields:
    found: Fields = {}
    for name in (*message_names(), "containerd.types.Mount"):
        described = message(name).DESCRIPTOR
        for field in described.fields:
            scalar = {field.TYPE_STRING: "string", field.TYPE_INT64: "int64"}.get(field.type)
            kind = scalar or (field.message_type or field.enum_type).name
            repeated = field.has_presence is False and field.default_value == []
            found[described.name, field.name] = field.number, kind, repeated
    return found


def test_every_field_is_the_same(installation: Installation) -> None:
    if installation.root is None or not (installation.root / _API).is_dir():
        pytest.skip("needs a root directory with containerd's sources: make test-matrix")
    expected = theirs(installation.root)
    assert {key: value for key, value in expected.items() if key not in _LEFT_OUT} == ours()
    assert len(expected) > 40
