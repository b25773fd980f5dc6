"""Where an S3 storage is and how to speak to it, as the stock server's configuration files say it.

Owns: the parameters ``CVMFS_S3_*``, their defaults and what is refused (CernVM-FS format reference, section
13.2). Must not know: S3 itself.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cvmfs_graphdriver.publisher.errors import StorageError

__all__ = ["S3Settings"]

_LIMIT = 1 << 16
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?|\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?")
_YES, _NO = {"yes", "true", "on", "1"}, {"no", "false", "off", "0"}
_ACLS = {
    *("private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read"),
    *("bucket-owner-read", "bucket-owner-full-control"),
}
_REGION = "us-east-1"
"""What a V4 signature names where the store does not care."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """One bucket; ``host`` with its port, ``timeout`` in seconds, ``acl`` empty for the bucket's own."""

    host: str
    bucket: str
    access_key: str
    secret_key: str
    region: str = _REGION
    https: bool = False
    dns_buckets: bool = False
    parallel: int = 16
    retries: int = 3
    timeout: float = 60.0
    acl: str = "public-read"
    proxy: str = ""

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a configuration file. Raises StorageError: it cannot be read, or says what makes no sense."""
        try:
            with file.open("rb") as reader:
                data = reader.read(_LIMIT + 1)
            text = data.decode()
        except OSError as error:
            raise StorageError(f"cannot read the S3 configuration {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise StorageError(f"the S3 configuration {file} is no text") from error
        if len(data) > _LIMIT:
            raise StorageError(f"{file} is too big for an S3 configuration")
        return cls._of(_Values(file, text))

    @classmethod
    def _of(cls, values: "_Values") -> Self:
        flavor = values.text("FLAVOR", "awsv4").lower()
        if flavor != "awsv4":
            values.refuse("FLAVOR", f"{flavor} is not supported: only awsv4 is")
        acl = values.text("X_AMZ_ACL", "public-read")
        if acl and acl not in _ACLS:
            values.refuse("X_AMZ_ACL", f"{acl!r} is none of {', '.join(sorted(_ACLS))}")
        bucket = values.required("BUCKET")
        if not _BUCKET.fullmatch(bucket):
            values.refuse("BUCKET", f"{bucket!r} cannot name a bucket")
        host = values.required("HOST")
        if not _HOST.fullmatch(host):
            values.refuse("HOST", f"{host!r} is no host, such as s3.example.org or 192.0.2.1:9000")
        port = values.number("PORT", 0, 65535)
        return cls(
            host=f"{host}:{port}" if port else host,
            bucket=bucket,
            access_key=values.required("ACCESS_KEY"),
            secret_key=values.required("SECRET_KEY"),
            region=values.text("REGION", _REGION) or _REGION,
            https=values.boolean("USE_HTTPS", default=False),
            dns_buckets=values.boolean("DNS_BUCKETS", default=True),
            parallel=max(1, values.number("MAX_NUMBER_OF_PARALLEL_CONNECTIONS", 16, 1024)),
            retries=values.number("MAX_RETRIES", 3, 100),
            timeout=max(1, values.number("TIMEOUT", 60, 86_400)),
            acl=acl,
            proxy=values.text("PROXY", ""),
        )


class _Values:
    """The assignments of a file, each in a line of its own."""

    def __init__(self, file: Path, text: str) -> None:
        self._file = file
        self._values = dict(self._assignments(text))

    def _assignments(self, text: str) -> list[tuple[str, str]]:
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                raise StorageError(f"{self._file}:{number}: {error}") from error
            words = words[1:] if words[:1] == ["export"] else words
            for word in words:
                name, equals, value = word.partition("=")
                if not equals or not _NAME.fullmatch(name):
                    raise StorageError(f"{self._file}:{number}: this is no NAME=VALUE")
                if "$" in value or "`" in value:
                    raise StorageError(f"{self._file}:{number}: {name} must be written without $ and `")
                found.append((name, value))
        return found

    def refuse(self, name: str, problem: str) -> None:
        raise StorageError(f"{self._file}: CVMFS_S3_{name}: {problem}")

    def text(self, name: str, default: str) -> str:
        return self._values.get(f"CVMFS_S3_{name}", default)

    def required(self, name: str) -> str:
        value = self.text(name, "")
        if not value:
            self.refuse(name, "it is missing, and needed for a storage in S3")
        return value

    def number(self, name: str, default: int, most: int) -> int:
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit()) or int(value) > most:
            self.refuse(name, f"{value!r} is no number from 0 to {most}")
        return int(value)

    def boolean(self, name: str, *, default: bool) -> bool:
        value = self.text(name, "yes" if default else "no").lower()
        if value not in _YES | _NO:
            self.refuse(name, f"{value!r} is neither yes nor no")
        return value in _YES
