"""The rules of overlayfs and of layer whiteouts, and mounting a stack of layers.

Owns: how a deletion appears in a layer's tar stream (OCI image specification, "Whiteouts"; the names come
from aufs) and in overlayfs (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories" and
"Nesting overlayfs mounts"); the form and limits of overlay's mount options. Must not know: whose layers they
are.
"""

import ctypes
import errno
import functools
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

from cvmfs_graphdriver.kernel.errors import MountError, OverlayError
from cvmfs_graphdriver.kernel.mount import (
    FilesystemContext,
    MountAttribute,
    MountFlag,
    Place,
    mount,
    move_mount,
)
from cvmfs_graphdriver.kernel.syscalls import LIBC

__all__ = [
    "LAYER_LIMIT",
    "MARK",
    "OPAQUE_MARK",
    "OPAQUE_VALUE",
    "OPAQUE_XATTR",
    "ORIGIN_XATTR",
    "WHITEOUT_DEVICE",
    "WHITEOUT_MODE",
    "escape_option",
    "escape_xattr",
    "hidden_by",
    "is_mark",
    "is_whiteout",
    "mount_overlay",
    "plain_options",
    "takes_upper",
    "unescape_xattr",
    "whiteout_of",
]

_UNFIT = {"aufs", "ecryptfs", "overlay", "zfs", "nfs", "nfs4", "fuse"}

MARK = b".wh."
"""Prefix of a whiteout file's name in a layer's tar stream; the rest is the deleted name."""

OPAQUE_MARK = b".wh..wh..opq"
"""A file that makes its directory opaque: it hides everything in the layers below."""

WHITEOUT_MODE = stat.S_IFCHR
WHITEOUT_DEVICE = os.makedev(0, 0)
"""A deletion in overlayfs: a character device with number 0:0."""

OPAQUE_XATTR = b"trusted.overlay.opaque"
OPAQUE_VALUE = b"y"
"""An opaque directory in overlayfs has this extended attribute with this value."""

ORIGIN_XATTR = b"trusted.overlay.origin"
"""On a directory that only one layer has, an empty value makes the kernel look for whiteouts in listings.

Without it overlayfs lists them as devices that cannot be looked up (fs/overlayfs/inode.c, ovl_get_inode).
"""

LAYER_LIMIT = 500
"""The most layers that overlayfs can stack (OVL_MAX_STACK)."""

_RESERVED = b"trusted.overlay."
_ESCAPED = b"trusted.overlay.overlay."
_PAGE = 4096
_CLONE_FS = 0x200
_STRING_LIMIT = 255
_UNKNOWN = "no_such_option"
_SPECIAL = re.compile(rb"[\\:,]")


def is_mark(name: bytes) -> bool:
    """Whether a file of this name in a layer is a mark that describes other files."""
    return name.startswith(MARK)


def hidden_by(name: bytes) -> bytes | None:
    """The name that a whiteout file called ``name`` deletes; None if it is not a whiteout.

    Names with a second mark (``.wh..wh.plnk``, the opaque mark) are internal to aufs, and ``.wh.`` followed
    by nothing, ``.`` or ``..`` has no meaning: none of these deletes anything.

    >>> hidden_by(b".wh.motd"), hidden_by(b"motd"), hidden_by(OPAQUE_MARK)
    (b'motd', None, None)
    """
    if not name.startswith(MARK) or name.startswith(MARK + MARK):
        return None
    hidden = name.removeprefix(MARK)
    return None if hidden in (b"", b".", b"..") else hidden


def whiteout_of(name: bytes) -> bytes:
    """The name of the whiteout file that deletes ``name``."""
    return MARK + name


def is_whiteout(mode: int, rdev: int) -> bool:
    """Whether an entry with this st_mode and st_rdev is a deletion for overlayfs."""
    return stat.S_ISCHR(mode) and rdev == WHITEOUT_DEVICE


def escape_xattr(name: bytes) -> bytes:
    """The name under which a lower layer must show an attribute for the merged tree to have ``name``.

    Names that overlayfs reserves for itself get another ``overlay.``, which overlayfs removes again.
    """
    return _ESCAPED + name.removeprefix(_RESERVED) if name.startswith(_RESERVED) else name


def unescape_xattr(name: bytes) -> bytes | None:
    """The attribute that overlayfs shows for ``name`` in a layer; None for its own attributes."""
    if name.startswith(_ESCAPED):
        return _RESERVED + name.removeprefix(_ESCAPED)
    return None if name.startswith(_RESERVED) else name


def escape_option(path: bytes) -> bytes:
    r"""A path escaped for overlay's option string.

    >>> escape_option(b"/a:b,c")
    b'/a\\:b\\,c'
    """
    return _SPECIAL.sub(rb"\\\g<0>", path)


@functools.cache
def plain_options() -> Mapping[str, str]:
    """Options for a stack whose upper directory must hold everything that is changed, and nothing else.

    Whatever the kernel's defaults are, there is no index, no renamed directory that refers to a lower layer,
    and no file whose content stays in a lower layer. Kernels that do not know one of these do not do it
    either.
    """
    names = ("index", "redirect_dir", "metacopy")
    return {name: "off" for name in names if os.path.exists(f"/sys/module/overlay/parameters/{name}")}


def takes_upper(filesystem: str) -> bool:
    """Whether an upper directory can lie on a file system of this kind, as the kernel names it."""
    return filesystem.partition(".")[0] not in _UNFIT


def mount_overlay(
    lower: Sequence[Place | int],
    target: Place,
    *,
    upper: Place | None = None,
    work: Place | None = None,
    data: Sequence[Place | int] = (),
    options: Mapping[str, str | None] | None = None,
    attributes: MountAttribute = MountAttribute.NONE,
) -> None:
    """Stack layers and attach the merged tree at ``target``.

    ``lower`` is topmost first; ``data`` are data-only layers below them (Linux 6.5). A layer given as an
    integer is an open directory; since Linux 6.13 it may belong to a mount that is not attached. ``options``
    are further options of overlayfs with their values, None for those without. Without ``upper`` and ``work``
    the tree is read-only.

    On a kernel that takes layers one by one (Linux 6.8) the length of their paths does not matter; on older
    ones all of them must fit into one page, if necessary as numbers of open directories. Raises OverlayError:
    too many layers; MountError: the kernel refused; OSError: a layer does not exist.
    """
    if len(lower) + len(data) > LAYER_LIMIT:
        raise OverlayError(
            f"cannot mount {os.fsdecode(target)}: {len(lower) + len(data)} layers are more than the "
            f"{LAYER_LIMIT} that overlayfs can stack; squash the image"
        )
    stack = _Stack(lower, data, upper, work, options or {}, attributes)
    mount_stack = _mount_by_context if _takes_single_layers() else _mount_by_string
    mount_stack(stack, os.path.abspath(os.fsencode(target)))


class _Stack(NamedTuple):
    """The arguments of ``mount_overlay``."""

    lower: Sequence[Place | int]
    data: Sequence[Place | int]
    upper: Place | None
    work: Place | None
    options: Mapping[str, str | None]
    attributes: MountAttribute


@functools.cache
def _takes_single_layers() -> bool:
    """Whether this kernel's overlayfs knows ``lowerdir+``.

    Before Linux 6.5, contexts of overlayfs accept any option and fail only when the mount is created.
    """
    try:
        with FilesystemContext("overlay") as context:
            if _takes(context, _UNKNOWN):
                return False
            context.set_string("lowerdir+", b"/")
    except MountError:
        return False
    return True


def _takes(context: FilesystemContext, key: str) -> bool:
    try:
        context.set_flag(key)
    except MountError:
        return False
    return True


def _mount_by_context(stack: _Stack, target: bytes) -> None:
    with ExitStack() as held, FilesystemContext("overlay") as context:
        context.set_string("source", "overlay")
        for key, layers in (("lowerdir+", stack.lower), ("datadir+", stack.data)):
            for layer in layers:
                if isinstance(layer, int):
                    _add_descriptor(context, key, layer)
                    continue
                path = os.fsencode(layer)
                context.set_string(key, path if len(path) <= _STRING_LIMIT else _held(path, held))
        for key, place in (("upperdir", stack.upper), ("workdir", stack.work)):
            if place is not None:
                path = os.fsencode(place)
                text = escape_option(path)
                context.set_string(key, text if len(text) <= _STRING_LIMIT else _held(path, held))
        for key, value in stack.options.items():
            if value is None:
                context.set_flag(key)
            else:
                context.set_string(key, value)
        descriptor = context.create(stack.attributes)
    try:
        move_mount(descriptor, target)
    finally:
        os.close(descriptor)


def _add_descriptor(context: FilesystemContext, key: str, layer: int) -> None:
    """Add an open directory as a layer; before Linux 6.13 by a path to it."""
    try:
        context.set_descriptor(key, layer)
    except MountError as error:
        if error.errno != errno.EINVAL:
            raise
        context.set_string(key, _name_of(layer))


def _name_of(descriptor: int) -> bytes:
    """A path to an open directory that does not depend on where it is."""
    return b"/proc/self/fd/%d" % descriptor


def _held(path: bytes, held: ExitStack) -> bytes:
    """A short path to a directory with a long one; valid until ``held`` is closed."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    held.callback(os.close, descriptor)
    return _name_of(descriptor)


def _mount_by_string(stack: _Stack, target: bytes) -> None:
    def name(layer: Place | int) -> bytes:
        return _name_of(layer) if isinstance(layer, int) else escape_option(os.fsencode(layer))

    flags = MountFlag(stack.attributes)
    text = _option_string(stack, name)
    if len(text) < _PAGE:
        mount("overlay", target, "overlay", flags, text)
        return
    with ExitStack() as held:

        def number(layer: Place | int) -> bytes:
            held_name = _held(os.fsencode(layer), held) if not isinstance(layer, int) else b"%d" % layer
            return held_name.rpartition(b"/")[2]

        text = _option_string(stack, number)
        _in_directory("/proc/self/fd", lambda: mount("overlay", target, "overlay", flags, text))


def _option_string(stack: _Stack, name: Callable[[Place | int], bytes]) -> bytes:
    """All options in the form of mount(2), with paths written by ``name``."""
    lower = b":".join(map(name, stack.lower)) + b"".join(b"::" + name(layer) for layer in stack.data)
    parts = [b"lowerdir=" + lower]
    parts += [
        key + b"=" + name(place)
        for key, place in ((b"upperdir", stack.upper), (b"workdir", stack.work))
        if place is not None
    ]
    for key, value in stack.options.items():
        text = key if value is None else f'{key}="{value}"' if "," in value else f"{key}={value}"
        parts.append(text.encode())
    return b",".join(parts)


def _in_directory(directory: str, action: Callable[[], None]) -> None:
    """Run an action in another working directory, without changing that of the rest of the process."""

    def run() -> None:
        if LIBC.unshare(_CLONE_FS) != 0:
            error = ctypes.get_errno()
            raise MountError(f"cannot use a separate working directory: {os.strerror(error)}", error)
        os.chdir(directory)
        action()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()
