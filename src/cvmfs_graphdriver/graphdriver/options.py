"""The driver's options: ``storage-opts`` in daemon.json.

Owns: their names and valid values. Must not know: what they are used for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cvmfs_graphdriver.graphdriver.errors import DriverOptionError
from cvmfs_graphdriver.graphdriver.sizes import parse_size

__all__ = ["DriverOptions"]

_TRUE, _FALSE = {"1", "t", "true", "yes", "on"}, {"0", "f", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """All options with their defaults."""

    override_kernel_check: bool = False
    size: int = 0
    """The maximum size of a container's layer in bytes; 0 for no limit."""

    @classmethod
    def parse(cls, options: Iterable[str]) -> Self:
        """Read ``name=value`` options; a prefix such as ``overlay2.`` is part of the name.

        Raises DriverOptionError: an unknown option, or an invalid value.
        """
        check, size = False, 0
        for option in options:
            name, _, value = option.partition("=")
            match name.strip().lower():
                case "overlay2.override_kernel_check" | "overlay.override_kernel_check":
                    check = _boolean(name, value)
                case "overlay2.size":
                    size = parse_size(f"storage-opt {name}", value)
                case "cvmfsmountmethod":
                    _check_method(value)
                case _:
                    raise DriverOptionError(
                        f"unknown storage-opt {name!r}; the known ones are overlay2.override_kernel_check, "
                        "overlay2.size and cvmfsMountMethod"
                    )
        return cls(check, size)


def _boolean(name: str, value: str) -> bool:
    text = value.strip().lower()
    if text not in _TRUE | _FALSE:
        raise DriverOptionError(f"storage-opt {name} must be true or false, not {value!r}")
    return text in _TRUE


def _check_method(value: str) -> None:
    """Docs: adr/0014-no-external-mounts.md."""
    match value.strip().lower():
        case "internal":
            return
        case "external":
            raise DriverOptionError(
                "storage-opt cvmfsMountMethod=external is not supported: in a repository that is mounted by "
                "others, whiteouts appear as files; omit the option, the plugin mounts what it needs"
            )
        case _:
            raise DriverOptionError(f"storage-opt cvmfsMountMethod must be internal, not {value!r}")
