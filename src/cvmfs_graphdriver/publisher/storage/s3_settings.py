"""Where an S3 storage is and how to reach it, from the stock server's configuration files.

Owns: the parameters ``CVMFS_S3_*``, their defaults and their validation (CernVM-FS format reference, section
13.2). Must not know: S3 itself.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cvmfs_graphdriver.publisher.storage.assignments import Assignments

__all__ = ["S3Settings"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?|\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?")
_ACLS = {
    *("private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read"),
    *("bucket-owner-read", "bucket-owner-full-control"),
}
_REGION = "us-east-1"
"""The region in a V4 signature for stores that ignore it."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """One bucket; ``host`` includes the port, ``timeout`` is in seconds, no ``acl`` means the bucket's."""

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
        """Read a configuration file. Raises StorageError: it cannot be read, or has an invalid value."""
        return cls._of(Assignments.load(file, "CVMFS_S3_"))

    @classmethod
    def _of(cls, values: Assignments) -> Self:
        flavor = values.text("FLAVOR", "awsv4").lower()
        if flavor != "awsv4":
            values.refuse("FLAVOR", f"{flavor} is not supported: only awsv4 is")
        acl = values.text("X_AMZ_ACL", "public-read")
        if acl and acl not in _ACLS:
            values.refuse("X_AMZ_ACL", f"{acl!r} is not one of {', '.join(sorted(_ACLS))}")
        bucket = values.required("BUCKET")
        if not _BUCKET.fullmatch(bucket):
            values.refuse("BUCKET", f"{bucket!r} is not a valid bucket name")
        host = values.required("HOST")
        if not _HOST.fullmatch(host):
            values.refuse("HOST", f"{host!r} is not a valid host, such as s3.example.org or 192.0.2.1:9000")
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
