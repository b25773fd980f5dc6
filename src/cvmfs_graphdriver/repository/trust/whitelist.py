"""The whitelist, ``.cvmfswhitelist``: whose signature counts, and until when (format reference, section 2.4).

Owns: the fields and their text form. Must not know: signatures, which ``chain`` verifies.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.trust.keys import Fingerprint

__all__ = ["Whitelist"]

_STAMP = "%Y%m%d%H%M%S"
_SOON = timedelta(days=7)
"""How long before its end people are told of it."""


class Whitelist(NamedTuple):
    """Which certificates may sign manifests of ``fqrn``; times are UTC."""

    fqrn: str
    created: datetime
    expires: datetime
    fingerprints: tuple[Fingerprint, ...]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the lines before the signature. Raises FormatError: a line is malformed."""
        try:
            lines = body.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise FormatError("the whitelist is not text") from error
        if len(lines) < 3 or lines[1][:1] != "E" or lines[2][:1] != "N":
            raise FormatError("the whitelist does not start with creation time, expiry and name")
        fingerprints = tuple(
            Fingerprint.parse(line)
            for line in lines[3:]
            if line.split("#", 1)[0].strip() and line[0] not in "VW"
        )
        return cls(lines[2][1:], _time(lines[0]), _time(lines[1][1:]), fingerprints)

    def export(self) -> bytes:
        """The lines, as stock tools write them."""
        lines = [self.created.strftime(_STAMP), "E" + self.expires.strftime(_STAMP), "N" + self.fqrn]
        lines += [fingerprint.text for fingerprint in self.fingerprints]
        return ("\n".join(lines) + "\n").encode()

    def expired(self, now: datetime) -> bool:
        """Whether it has expired; minutes do not count."""
        hour = {"minute": 0, "second": 0, "microsecond": 0}
        return self.expires.replace(**hour) < now.astimezone(UTC).replace(**hour)  # type: ignore[arg-type]

    def ends_soon(self, now: datetime) -> bool:
        """Whether it has expired, or will within 7 days."""
        return self.expires < now + _SOON

    def problem(self, now: datetime) -> str:
        """What to tell people if it has expired or will soon; else empty."""
        if not self.ends_soon(now):
            return ""
        verb = "expired" if self.expired(now) else "expires"
        when = f"{verb} on {self.expires:%Y-%m-%d %H:%M} UTC"
        return f"the whitelist of {self.fqrn} {when}: its owner must sign it again"


def _time(text: str) -> datetime:
    if len(text) != 14 or not (text.isascii() and text.isdigit()):
        raise FormatError(f"{text[:40]!r} is not a time: 14 digits are expected")
    try:
        return datetime.fromisoformat(f"{text[:8]}T{text[8:]}Z")  # strptime's module takes 5 ms to import
    except ValueError as error:
        raise FormatError(f"{text!r} is not a valid time") from error
