"""The frame of signed files: body, ``--``, the body's digest as text, a signature over that text.

Owns: taking apart and joining (CernVM-FS format reference, section 2.1). Must not know: keys; callers verify
``signature`` over ``signed_text`` by the rule for their kind of file.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["Letter", "encode_letter"]

_MARK = b"--\n"


class Letter(NamedTuple):
    """A signed file, taken apart. ``body`` ends with its newline; nothing is proven yet."""

    body: bytes
    digest: Digest
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises FormatError: there is no mark, or no digest and signature after it."""
        body, mark, rest = data.partition(b"\n" + _MARK)
        if not mark:
            raise FormatError("it is not signed: there is no line '--' before a signature")
        text, newline, signature = rest.partition(b"\n")
        if not newline or not signature:
            raise FormatError("it is cut short: digest and signature are missing after the line '--'")
        try:
            digest = Digest.parse(text.decode("ascii"))
        except UnicodeDecodeError as error:
            raise FormatError("the line after '--' is not a digest") from error
        return cls(body + b"\n", digest, signature)

    @property
    def signed_text(self) -> bytes:
        """What the signature covers."""
        return self.digest.text.encode("ascii")

    def digest_matches(self) -> bool:
        """Whether the stated digest is that of the body."""
        return Digest.of(self.body, self.digest.algorithm) == self.digest


def encode_letter(body: bytes, algorithm: Algorithm, sign: Callable[[bytes], bytes]) -> bytes:
    """The signed file: ``sign`` receives the digest's text and returns the signature."""
    text = Digest.of(body, algorithm).text.encode("ascii")
    return body + _MARK + text + b"\n" + sign(text)
