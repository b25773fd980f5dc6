"""Our descriptions of messages are those of the protocol files: containerd's, and that of Kubernetes."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from cvmfs_graphdriver.snapshotter.messages import message, message_names, other_message_names
from demo.installation import Installation
from tests.support.cri_messages import cri_message, cri_message_names

pytestmark = pytest.mark.docker

_SOURCES = "usr/share/gocode/src"
_API = "github.com/containerd/containerd/api"
_FILES = (f"{_API}/services/snapshots/v1/snapshots.proto", f"{_API}/types/mount.proto")
_FIELD = re.compile(r"^\s*(repeated )?(map<string,\s*string>|[\w.]+) (\w+)\s+=\s+(\d+)\s*;", re.MULTILINE)
_OTHER_FILES = (
    *(
        f"{_API}/services/{name}/v1/{file}.proto"
        for name, file in (("images", "images"), ("content", "content"))
    ),
    *(f"{_API}/{name}.proto" for name in ("services/namespaces/v1/namespace", "types/descriptor")),
)
_CRI_FILES = ("k8s.io/cri-api/pkg/apis/runtime/v1/api.proto",)
_LEFT_OUT = {("CommitSnapshotRequest", "parent")}  # of the capability ``rebase``
_AS_NUMBERS = {"NamespaceMode": "int32"}
"""Enumerations that are described as numbers."""

Fields = dict[tuple[str, str], tuple[int, str, bool]]


@pytest.fixture
def sources(installation: Installation) -> Path:
    if installation.root is None or not (installation.root / _SOURCES).is_dir():
        pytest.skip("needs a root directory with containerd's sources: make test-matrix")
    return installation.root / _SOURCES


def theirs(sources: Path, files: Iterable[str]) -> Fields:
    found: Fields = {}
    for file in files:
        text = re.sub(r"//.*", "", (sources / file).read_text())
        for name, body in re.findall(r"^message (\w+)\s*\{(?!\})(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            for repeated, kind, field, number in _FIELD.findall(body):
                is_map = kind.startswith("map")
                short = f"{field.capitalize()}Entry" if is_map else kind.rpartition(".")[2]
                found[name, field] = int(number), _AS_NUMBERS.get(short, short), bool(repeated) or is_map
    return found


def ours(messages: Iterable[Any]) -> Fields:
    found: Fields = {}
    for described in (each.DESCRIPTOR for each in messages):
        for field in described.fields:
            scalar = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
            named = field.message_type or field.enum_type
            repeated = field.has_presence is False and field.default_value == []
            found[described.name, field.name] = field.number, named.name if named else scalar, repeated
    return found


def test_every_field_is_the_same(sources: Path) -> None:
    expected = theirs(sources, _FILES)
    assert {key: value for key, value in expected.items() if key not in _LEFT_OUT} == ours(
        map(message, [*message_names(), "containerd.types.Mount"])
    )
    assert len(expected) > 40


def test_what_we_know_of_other_services_is_so(sources: Path) -> None:
    found = ours(map(message, other_message_names()))
    assert found.items() <= theirs(sources, _OTHER_FILES).items()
    assert len(found) > 10


def test_what_the_tests_know_of_the_container_runtime_interface_is_so(sources: Path) -> None:
    found = ours(map(cri_message, cri_message_names()))
    assert found.items() <= theirs(sources, _CRI_FILES).items()
    assert len(found) > 50
