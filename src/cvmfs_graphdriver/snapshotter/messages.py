"""The messages of containerd's snapshots service, version 1, and those by which it is asked about an image.

Owns: their description, from which the protobuf library makes classes when this module is imported. So there
is no generated code, which would be tied to versions of that library. The same from containerd 1.6 to 2.x:
``api/services/snapshots/v1/snapshots.proto`` and ``api/types/mount.proto`` of containerd; fields that belong
to capabilities that we do not have (``rebase``) are left out, and the library ignores them. Must not know:
what the messages mean.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import empty_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

__all__ = ["SERVICE", "describe_file", "message", "message_names", "other_message_names"]

SERVICE = "containerd.services.snapshots.v1.Snapshots"

_PACKAGE = "containerd.services.snapshots.v1"
_WELL_KNOWN = (empty_pb2, field_mask_pb2, timestamp_pb2)
_TIME, _MASK, _MOUNT = ".google.protobuf.Timestamp", ".google.protobuf.FieldMask", ".containerd.types.Mount"
_INFO, _KIND = f".{_PACKAGE}.Info", f".{_PACKAGE}.Kind"
_KINDS = ("UNKNOWN", "VIEW", "ACTIVE", "COMMITTED")

# Each message is a table of fields: number, name, type; "*" marks a repeated field.
_TYPES = {
    "Mount": (
        (1, "type", "string"),
        (2, "source", "string"),
        (3, "target", "string"),
        (4, "options", "string*"),
    ),
    "Descriptor": ((1, "media_type", "string"), (2, "digest", "string"), (3, "size", "int64")),
}
_NEW = ((1, "snapshotter", "string"), (2, "key", "string"), (3, "parent", "string"), (4, "labels", "map"))
_ONE = ((1, "snapshotter", "string"), (2, "key", "string"))
_MOUNTS = ((1, "mounts", f"{_MOUNT}*"),)
_MESSAGES = {
    "PrepareSnapshotRequest": _NEW,
    "PrepareSnapshotResponse": _MOUNTS,
    "ViewSnapshotRequest": _NEW,
    "ViewSnapshotResponse": _MOUNTS,
    "MountsRequest": _ONE,
    "MountsResponse": _MOUNTS,
    "RemoveSnapshotRequest": _ONE,
    "CommitSnapshotRequest": (
        (1, "snapshotter", "string"),
        (2, "name", "string"),
        (3, "key", "string"),
        (4, "labels", "map"),
    ),
    "StatSnapshotRequest": _ONE,
    "Info": (
        (1, "name", "string"),
        (2, "parent", "string"),
        (3, "kind", _KIND),
        (4, "created_at", _TIME),
        (5, "updated_at", _TIME),
        (6, "labels", "map"),
    ),
    "StatSnapshotResponse": ((1, "info", _INFO),),
    "UpdateSnapshotRequest": ((1, "snapshotter", "string"), (2, "info", _INFO), (3, "update_mask", _MASK)),
    "UpdateSnapshotResponse": ((1, "info", _INFO),),
    "ListSnapshotsRequest": ((1, "snapshotter", "string"), (2, "filters", "string*")),
    "ListSnapshotsResponse": ((1, "info", f"{_INFO}*"),),
    "UsageRequest": _ONE,
    "UsageResponse": ((1, "size", "int64"), (2, "inodes", "int64")),
    "CleanupRequest": ((1, "snapshotter", "string"),),
}

_OTHERS: dict[str, dict[str, Any]] = {
    "containerd.services.namespaces.v1": {
        "ListNamespacesRequest": ((1, "filter", "string"),),
        "Namespace": ((1, "name", "string"),),
        "ListNamespacesResponse": ((1, "namespaces", ".containerd.services.namespaces.v1.Namespace*"),),
    },
    "containerd.services.images.v1": {
        "GetImageRequest": ((1, "name", "string"),),
        "Image": ((1, "name", "string"), (3, "target", ".containerd.types.Descriptor")),
        "GetImageResponse": ((1, "image", ".containerd.services.images.v1.Image"),),
    },
    "containerd.services.content.v1": {
        "ReadContentRequest": ((1, "digest", "string"), (2, "offset", "int64"), (3, "size", "int64")),
        "ReadContentResponse": ((1, "offset", "int64"), (2, "data", "bytes")),
    },
}
"""Of other services, only what we send and what we read of their answers."""


def describe_file(name: str, package: str, messages: Mapping[str, Any]) -> FileDescriptorProto:
    """A file of messages from such tables: a type is a scalar, "map" (of strings), or ".package.Message"."""
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message_name, fields in messages.items():
        described = file.message_type.add(name=message_name)
        for number, field, kind in fields:
            _describe(described, f".{package}.{message_name}", number, field, kind)
    return file


def _describe(described: DescriptorProto, owner: str, number: int, name: str, kind: str) -> None:
    """Add one field to a message's description."""
    field = described.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.endswith("*") or kind == "map":
        field.label = FieldDescriptorProto.LABEL_REPEATED
    kind = kind.removesuffix("*")
    if kind == _KIND:
        field.type, field.type_name = FieldDescriptorProto.TYPE_ENUM, kind
    elif kind.startswith("."):
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, kind
    elif kind != "map":
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    else:  # the wire has a list of pairs
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        pair = described.nested_type.add(name=f"{name.capitalize()}Entry")
        pair.options.map_entry = True
        field.type_name = f"{owner}.{pair.name}"
        _describe(pair, "", 1, "key", "string")
        _describe(pair, "", 2, "value", "string")


def _pool() -> DescriptorPool:
    """A pool of our own: other libraries in this process may have their own containerd messages."""
    pool = DescriptorPool()
    for module in _WELL_KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    types = describe_file("types/mount.proto", "containerd.types", _TYPES)
    service = describe_file("services/snapshots.proto", _PACKAGE, _MESSAGES)
    kinds = service.enum_type.add(name="Kind")
    for number, name in enumerate(_KINDS):
        kinds.value.add(name=name, number=number)
    service.dependency.extend([types.name, *(module.DESCRIPTOR.name for module in _WELL_KNOWN)])
    others = [describe_file(f"{package}.proto", package, messages) for package, messages in _OTHERS.items()]
    for file in others:
        file.dependency.append(types.name)
    for file in (types, service, *others):
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def message(name: str) -> Any:
    """The class of a message of the service, or of another package by its full name."""
    full = name if "." in name else f"{_PACKAGE}.{name}"
    return GetMessageClass(_POOL.FindMessageTypeByName(full))


def message_names() -> list[str]:
    """The names of the service's messages."""
    return list(_MESSAGES)


def other_message_names() -> list[str]:
    """The full names of messages of which we know only a part."""
    others = (f"{package}.{name}" for package, messages in _OTHERS.items() for name in messages)
    return ["containerd.types.Descriptor", *others]
