"""Digests, the names of objects and the keys of paths (CernVM-FS format reference, sections 1 and 3.2).

Owns: the algorithms, the text forms, where an object lives on a server and in a cache.
Must not know: what is inside an object.
"""

import hashlib
import re
import struct
from enum import Enum, StrEnum
from typing import Final, NamedTuple, Protocol, Self

from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["DIGEST_SIZE", "Algorithm", "Digest", "Hasher", "ObjectName", "PathKey", "Suffix"]

DIGEST_SIZE: Final = 20
"""Bytes of a digest, whatever its algorithm."""


class Hasher(Protocol):
    """A running digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _Shake128:
    """SHAKE-128 cut to the 20 bytes the format uses, with the interface of the fixed-length digests."""

    def __init__(self) -> None:
        self._shake = hashlib.shake_128()

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._shake.update(data)

    def digest(self) -> bytes:
        return self._shake.digest(DIGEST_SIZE)


class Algorithm(Enum):
    """A content hash algorithm; the value is the number that the format gives it.

    Its number 0, MD5, is the key of paths only (``PathKey``): it never names content.
    """

    SHA1 = 1
    RMD160 = 2
    SHAKE128 = 3

    @property
    def size(self) -> int:
        """Length of a digest in bytes."""
        return DIGEST_SIZE

    @property
    def identifier(self) -> str:
        """The suffix of the hex digits in the text form; empty for SHA-1."""
        if self is Algorithm.SHA1:
            return ""
        return "-rmd160" if self is Algorithm.RMD160 else "-shake128"

    def new(self) -> Hasher:
        """A fresh running digest."""
        if self is Algorithm.SHA1:
            return hashlib.sha1(usedforsecurity=False)
        if self is Algorithm.RMD160:
            from Crypto.Hash import RIPEMD160  # few repositories use it, and OpenSSL 3 hides its own

            return RIPEMD160.new()
        return _Shake128()


_BY_IDENTIFIER = {algorithm.identifier: algorithm for algorithm in Algorithm}
_TEXT = re.compile(f"([0-9a-f]{{40}})({'|'.join(_BY_IDENTIFIER)})", re.ASCII)


class Suffix(StrEnum):
    """The letter that ends an object's name. It is not part of the digest (section 1.2)."""

    NONE = ""
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    METAINFO = "M"
    PARTIAL = "P"
    MICRO_CATALOG = "L"
    TEMPORARY = "T"


class _DigestFields(NamedTuple):
    algorithm: Algorithm
    raw: bytes


class Digest(_DigestFields):
    """The digest of bytes as they are stored, that is after compression (section 1.4)."""

    __slots__ = ()

    def __new__(cls, algorithm: Algorithm, raw: bytes) -> Self:
        if len(raw) != DIGEST_SIZE:
            raise FormatError(f"a digest has {DIGEST_SIZE} bytes, not {len(raw)}")
        return super().__new__(cls, algorithm, raw)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: Algorithm = Algorithm.SHA1) -> Self:
        """The digest of ``data``."""
        hasher = algorithm.new()
        hasher.update(data)
        return cls(algorithm, hasher.digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form, e.g. ``ab12…`` or ``ab12…-rmd160``, without a suffix letter.

        Raises FormatError: not hex digits of the right length with a known algorithm.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise FormatError(
                f"{text[:80]!r} is not a digest: 40 lower-case hex digits and an algorithm are expected"
            )
        return cls(_BY_IDENTIFIER[match[2]], bytes.fromhex(match[1]))

    @property
    def hex(self) -> str:
        """The hex digits alone."""
        return self.raw.hex()

    @property
    def text(self) -> str:
        """The text form: hex digits and the algorithm's identifier."""
        return self.raw.hex() + self.algorithm.identifier

    def __str__(self) -> str:
        return self.text


class ObjectName(NamedTuple):
    """The name of a stored object: a digest and the suffix that says what it is."""

    digest: Digest
    suffix: Suffix = Suffix.NONE

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form with its suffix letter, if it has one."""
        if text and text[-1] in "CHXMPLT":
            return cls(Digest.parse(text[:-1]), Suffix(text[-1]))
        return cls(Digest.parse(text))

    @property
    def text(self) -> str:
        """Digest text and suffix letter."""
        return self.digest.text + self.suffix

    @property
    def path(self) -> str:
        """Where the object lives below the root of a repository, e.g. ``data/ab/cdef…C``."""
        text = self.text
        return f"data/{text[:2]}/{text[2:]}"

    @property
    def alternative_path(self) -> str:
        """The bootstrap path at the repository's root (section 1.3)."""
        return f".cvmfsalt-{self.text}"

    @property
    def cache_path(self) -> str:
        """Where the object lives below a client's cache: without the suffix letter (section 1.3)."""
        text = self.digest.text
        return f"{text[:2]}/{text[2:]}"

    def __str__(self) -> str:
        return self.text


class PathKey(NamedTuple):
    """A path as catalogs key it: the two halves of its MD5, little-endian and signed (section 3.2)."""

    first: int
    second: int

    @classmethod
    def of(cls, path: bytes) -> "PathKey":
        """The key of an absolute path inside the repository: ``b""`` is the root, no trailing slash."""
        return cls(*struct.unpack("<qq", hashlib.md5(path, usedforsecurity=False).digest()))
