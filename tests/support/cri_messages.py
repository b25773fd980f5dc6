"""The messages of the Container Runtime Interface, version 1, that a kubelet and ``crictl`` send most.

Owns: their description, which tests/containerd/test_messages.py compares with the original. Only what tests
send and what they read of the answers; enumerations are numbers.
"""

from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from cvmfs_graphdriver.snapshotter.messages import describe_file

__all__ = ["PACKAGE", "cri_message", "cri_message_names"]

PACKAGE = "runtime.v1"

_SANDBOX = ((1, "pod_sandbox_id", "string"),)
_CONTAINER = ((1, "container_id", "string"),)
_IMAGE = ((1, "image", ".runtime.v1.ImageSpec"),)
_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "UInt64Value": ((1, "value", "uint64"),),
    "ImageSpec": ((1, "image", "string"),),
    "PullImageRequest": _IMAGE,
    "PullImageResponse": (),
    "Image": ((1, "id", "string"), (2, "repo_tags", "string*"), (4, "size", "uint64")),
    "ListImagesRequest": (),
    "ListImagesResponse": ((1, "images", ".runtime.v1.Image*"),),
    "RemoveImageRequest": _IMAGE,
    "RemoveImageResponse": (),
    "FilesystemIdentifier": ((1, "mountpoint", "string"),),
    "FilesystemUsage": (
        (2, "fs_id", ".runtime.v1.FilesystemIdentifier"),
        (3, "used_bytes", ".runtime.v1.UInt64Value"),
        (4, "inodes_used", ".runtime.v1.UInt64Value"),
    ),
    "ImageFsInfoRequest": (),
    "ImageFsInfoResponse": ((1, "image_filesystems", ".runtime.v1.FilesystemUsage*"),),
    "NamespaceOption": ((1, "network", "int32"), (2, "pid", "int32"), (3, "ipc", "int32")),
    "LinuxSandboxSecurityContext": ((1, "namespace_options", ".runtime.v1.NamespaceOption"),),
    "LinuxPodSandboxConfig": (
        (1, "cgroup_parent", "string"),
        (2, "security_context", ".runtime.v1.LinuxSandboxSecurityContext"),
    ),
    "PodSandboxMetadata": ((1, "name", "string"), (2, "uid", "string"), (3, "namespace", "string")),
    "PodSandboxConfig": (
        (1, "metadata", ".runtime.v1.PodSandboxMetadata"),
        (8, "linux", ".runtime.v1.LinuxPodSandboxConfig"),
    ),
    "RunPodSandboxRequest": ((1, "config", ".runtime.v1.PodSandboxConfig"),),
    "RunPodSandboxResponse": _SANDBOX,
    "StopPodSandboxRequest": _SANDBOX,
    "StopPodSandboxResponse": (),
    "RemovePodSandboxRequest": _SANDBOX,
    "RemovePodSandboxResponse": (),
    "Mount": (
        (1, "container_path", "string"),
        (3, "readonly", "bool"),
        (9, "image", ".runtime.v1.ImageSpec"),
    ),
    "LinuxContainerSecurityContext": ((3, "namespace_options", ".runtime.v1.NamespaceOption"),),
    "LinuxContainerConfig": ((2, "security_context", ".runtime.v1.LinuxContainerSecurityContext"),),
    "ContainerMetadata": ((1, "name", "string"),),
    "ContainerConfig": (
        (1, "metadata", ".runtime.v1.ContainerMetadata"),
        (2, "image", ".runtime.v1.ImageSpec"),
        (3, "command", "string*"),
        (7, "mounts", ".runtime.v1.Mount*"),
        (15, "linux", ".runtime.v1.LinuxContainerConfig"),
    ),
    "CreateContainerRequest": (
        *_SANDBOX,
        (2, "config", ".runtime.v1.ContainerConfig"),
        (3, "sandbox_config", ".runtime.v1.PodSandboxConfig"),
    ),
    "CreateContainerResponse": _CONTAINER,
    "StartContainerRequest": _CONTAINER,
    "StartContainerResponse": (),
    "StopContainerRequest": _CONTAINER,
    "StopContainerResponse": (),
    "RemoveContainerRequest": _CONTAINER,
    "RemoveContainerResponse": (),
    "ExecSyncRequest": (*_CONTAINER, (2, "cmd", "string*"), (3, "timeout", "int64")),
    "ExecSyncResponse": ((1, "stdout", "bytes"), (2, "stderr", "bytes"), (3, "exit_code", "int32")),
    "CpuUsage": ((2, "usage_core_nano_seconds", ".runtime.v1.UInt64Value"),),
    "MemoryUsage": ((2, "working_set_bytes", ".runtime.v1.UInt64Value"),),
    "ContainerStats": (
        (2, "cpu", ".runtime.v1.CpuUsage"),
        (3, "memory", ".runtime.v1.MemoryUsage"),
        (4, "writable_layer", ".runtime.v1.FilesystemUsage"),
    ),
    "ContainerStatsRequest": _CONTAINER,
    "ContainerStatsResponse": ((1, "stats", ".runtime.v1.ContainerStats"),),
}


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    pool.AddSerializedFile(describe_file("api.proto", PACKAGE, _MESSAGES).SerializeToString())
    return pool


_POOL = _pool()


def cri_message(name: str) -> Any:
    """The class of a message."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def cri_message_names() -> list[str]:
    """The names of all messages here."""
    return list(_MESSAGES)
