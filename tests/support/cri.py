"""A client of the Container Runtime Interface, which does what a kubelet and ``crictl`` do.

Owns: calls about images, sandboxes and containers, and undoing them. Sandboxes have the network of this
machine, so that no network plugin is needed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from tests.support.cri_messages import PACKAGE, cri_message

__all__ = ["Cri", "CriContainer"]

_PATIENCE = 60
_OF_NODE = {"network": 2, "pid": 1}
"""The network of the machine, and processes seen by one container only."""


class Cri:
    """A client of the interface at a socket; its control groups lie below ``cgroup``."""

    def __init__(self, socket: Path, cgroup: str) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._cgroup = cgroup
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def pull(self, reference: str) -> None:
        self.call("PullImage", image={"image": reference})

    def images(self) -> dict[str, int]:
        """The images that are here by name, and what each is said to take."""
        return {tag: each.size for each in self.call("ListImages").images for tag in each.repo_tags}

    def remove(self, reference: str) -> None:
        self.call("RemoveImage", image={"image": reference})

    def image_filesystem(self) -> Any:
        """The usage of the file system with the images."""
        (found,) = self.call("ImageFsInfo").image_filesystems
        return found

    @contextmanager
    def container(
        self, image: str, *command: str, volumes: Mapping[str, str] | None = None
    ) -> Iterator["CriContainer"]:
        """A running container in a sandbox of its own; ``volumes`` are images by their mount points."""
        self._number += 1
        name = f"pod-{self._number}"
        pod = {
            "metadata": {"name": name, "uid": name, "namespace": "tests"},
            "linux": {
                "cgroup_parent": self._cgroup,
                "security_context": {"namespace_options": _OF_NODE},
            },
        }
        sandbox = {"pod_sandbox_id": self.call("RunPodSandbox", config=pod).pod_sandbox_id}
        config = {
            "metadata": {"name": "container"},
            "image": {"image": image},
            "command": command,
            "mounts": [
                {"container_path": path, "image": {"image": volume}, "readonly": True}
                for path, volume in (volumes or {}).items()
            ],
            "linux": {"security_context": {"namespace_options": _OF_NODE}},
        }
        try:
            made = self.call("CreateContainer", **sandbox, config=config, sandbox_config=pod)
            found = {"container_id": made.container_id}
            self.call("StartContainer", **found)
            yield CriContainer(self, made.container_id)
            self.call("StopContainer", **found)
            self.call("RemoveContainer", **found)
        finally:
            self.call("StopPodSandbox", **sandbox)
            self.call("RemovePodSandbox", **sandbox)

    def call(self, method: str, /, **fields: Any) -> Any:
        service = "ImageService" if "Image" in method else "RuntimeService"
        invoke = self._channel.unary_unary(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=cri_message(f"{method}Response").FromString,
        )
        return invoke(cri_message(f"{method}Request")(**fields), timeout=_PATIENCE, wait_for_ready=True)


class CriContainer:
    """A running container."""

    def __init__(self, cri: Cri, identity: str) -> None:
        self._cri = cri
        self.identity = identity

    def __call__(self, *words: str) -> str:
        """What a program that is run in it prints."""
        done = self._cri.call("ExecSync", container_id=self.identity, cmd=words, timeout=_PATIENCE)
        assert done.exit_code == 0, done.stderr.decode()
        return str(done.stdout.decode())

    def stats(self) -> Any:
        return self._cri.call("ContainerStats", container_id=self.identity).stats
