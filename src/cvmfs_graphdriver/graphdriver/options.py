"""The driver's options, as they stand in ``storage-opts`` of daemon.json.

Owns: names, values and what is refused. Must not know: what they are used for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from cvmfs_graphdriver.graphdriver.errors import DriverOptionError

__all__ = ["DriverOptions", "MountMethod"]

_TRUE, _FALSE = {"1", "t", "true", "yes", "on"}, {"0", "f", "false", "no", "off"}


class MountMethod(StrEnum):
    """Who mounts repositories: the plugin itself, or the host, below ``/cvmfs``."""

    INTERNAL = "internal"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """All options with their defaults."""

    override_kernel_check: bool = False
    mount_method: MountMethod = MountMethod.INTERNAL

    @classmethod
    def parse(cls, options: Iterable[str]) -> Self:
        """Read ``name=value`` options; a prefix such as ``overlay2.`` is part of the name.

        Raises DriverOptionError: an unknown option, or a value that it cannot have.
        """
        check, method = False, MountMethod.INTERNAL
        for option in options:
            name, _, value = option.partition("=")
            match name.strip().lower():
                case "overlay2.override_kernel_check" | "overlay.override_kernel_check":
                    check = _boolean(name, value)
                case "cvmfsmountmethod":
                    method = _method(value)
                case _:
                    raise DriverOptionError(
                        f"storage-opt {name!r} is unknown; known are overlay2.override_kernel_check and "
                        "cvmfsMountMethod"
                    )
        return cls(check, method)


def _boolean(name: str, value: str) -> bool:
    text = value.strip().lower()
    if text not in _TRUE | _FALSE:
        raise DriverOptionError(f"storage-opt {name} must be true or false, not {value!r}")
    return text in _TRUE


def _method(value: str) -> MountMethod:
    try:
        return MountMethod(value.strip().lower())
    except ValueError as error:
        raise DriverOptionError(
            f"storage-opt cvmfsMountMethod must be internal or external, not {value!r}"
        ) from error
