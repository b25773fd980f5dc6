"""Finding the RSA key in a public key file and in a certificate.

Owns: as much of PEM (RFC 7468), DER (X.690, section 10), SubjectPublicKeyInfo (RFC 5280, section 4.1) and
RSAPublicKey (RFC 8017, A.1.1) as are needed to find the two numbers of a key. Must not know: what they
are used for; nothing here proves anything.

docs/adr/0020-der-reader.md says why no library does it.
"""

import binascii
from typing import NamedTuple

from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["RsaNumbers", "bare_numbers", "certified_numbers", "decode_pem", "key_numbers"]

_INTEGER, _BITS, _OBJECT, _SEQUENCE, _VERSION = 0x02, 0x03, 0x06, 0x30, 0xA0
_RSA = bytes.fromhex("2a864886f70d010101")  # 1.2.840.113549.1.1.1, rsaEncryption
_LONG = 0x80
_LENGTH_BYTES = 4


class RsaNumbers(NamedTuple):
    """An RSA public key."""

    exponent: int
    modulus: int


def decode_pem(text: bytes, label: bytes) -> bytes:
    """The DER in the first block of that label. Raises FormatError: there is none, or it is not base64."""
    _, begin, rest = text.partition(b"-----BEGIN %b-----" % label)
    base64, end, _ = rest.partition(b"-----END %b-----" % label)
    if not begin or not end:
        raise FormatError(f"it has no PEM block {label.decode()}")
    try:
        return binascii.a2b_base64(b"".join(base64.split()), strict_mode=True)
    except binascii.Error as error:
        raise FormatError(f"its PEM block {label.decode()} is not base64") from error


def certified_numbers(der: bytes) -> RsaNumbers:
    """The key of a certificate. Raises FormatError: it is not one, or the key is not RSA."""
    signed, rest = _take(_SEQUENCE, _only(_SEQUENCE, der))
    _, rest = _take(_SEQUENCE, rest)  # algorithm and signature: the issuer does not matter
    _only(_BITS, rest)
    if signed[:1] == bytes([_VERSION]):
        _, signed = _take(_VERSION, signed)
    for tag in (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE):
        _, signed = _take(tag, signed)  # serial number, algorithm, issuer, validity, subject
    key, _ = _take(_SEQUENCE, signed)
    return _numbers(key)


def key_numbers(der: bytes) -> RsaNumbers:
    """The key in a SubjectPublicKeyInfo. Raises FormatError: it is not one, or the key is not RSA."""
    return _numbers(_only(_SEQUENCE, der))


def bare_numbers(der: bytes) -> RsaNumbers:
    """The key in an RSAPublicKey. Raises FormatError: it is not one."""
    modulus, rest = _take(_INTEGER, _only(_SEQUENCE, der))
    return RsaNumbers(_natural(_only(_INTEGER, rest)), _natural(modulus))


def _numbers(info: bytes) -> RsaNumbers:
    algorithm, bits = _take(_SEQUENCE, info)
    name, _ = _take(_OBJECT, algorithm)
    if name != _RSA:
        raise FormatError("its key is not RSA")
    numbers = _only(_BITS, bits)
    if numbers[:1] != b"\0":  # the number of unused bits
        raise FormatError("its key is not a whole number of bytes")
    return bare_numbers(numbers[1:])


def _natural(content: bytes) -> int:
    value = int.from_bytes(content, "big", signed=True)
    if value <= 0:
        raise FormatError("a number of its key is not positive")
    return value


def _only(tag: int, data: bytes) -> bytes:
    """The content of the element that is all of ``data``."""
    content, rest = _take(tag, data)
    if rest:
        raise FormatError("it is longer than it says")
    return content


def _take(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """The content of the element that ``data`` begins with, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise FormatError(f"it lacks a DER element {tag:#04x} where one is expected")
    start, length = 2, data[1]
    if length >= _LONG:
        start += length - _LONG
        if not 2 < start <= 2 + _LENGTH_BYTES:
            raise FormatError("it has a DER element of an impossible length")
        length = int.from_bytes(data[2:start], "big")
        if length < _LONG or data[2] == 0:
            raise FormatError("it has a DER element whose length is not in its shortest form")
    end = start + length
    if end > len(data):
        raise FormatError("it is cut short")
    return data[start:end], data[end:]
