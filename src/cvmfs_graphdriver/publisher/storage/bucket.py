"""One bucket of an S3 store.

Owns: requests, their signatures (V4), addressing (path or virtual-host style), retries, and errors (Amazon's
S3 API; CernVM-FS format reference, section 13.2). Must not know: what objects mean.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Self

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from cvmfs_graphdriver.publisher.errors import StorageError, innermost
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings

__all__ = ["Bucket", "BucketObject", "BucketReader", "read_small"]

_ABSENT = {"NoSuchKey", "NoSuchObject", "NotFound", "NoSuchUpload"}
_PART = 64 << 20
_RETRIED = (429, 500, 502, 503, 504)
_BACKOFF, _BACKOFF_MAX = 0.1, 2.0
_SIGNED_FOR = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object in a listing; ``etag`` changes when its content does."""

    key: str
    size: int
    etag: str


class BucketReader:
    """An object's bytes in order, for a ``with`` statement. ``age`` is the seconds since it was written."""

    def __init__(self, bucket: "Bucket", key: str, response: urllib3.BaseHTTPResponse) -> None:
        self._bucket = bucket
        self._key = key
        self._response = response
        headers = response.headers
        self.etag = headers.get("ETag", "").strip('"')
        self.age = _seconds(headers.get("Last-Modified"), headers.get("Date"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._response.release_conn()

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; empty only at the end. Raises StorageError."""
        with self._bucket.mapped("read", self._key):
            return self._response.read(size if size >= 0 else None)


class Bucket:
    """A bucket, safe for any number of threads. All methods raise StorageError."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self._name = settings.bucket
        retries = urllib3.Retry(
            total=settings.retries,
            backoff_factor=_BACKOFF,
            backoff_max=_BACKOFF_MAX,
            status_forcelist=_RETRIED,
            raise_on_status=False,
        )
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=min(settings.timeout, 10.0), read=settings.timeout),
            "maxsize": settings.parallel,
            "retries": retries,
        }
        self._http = (
            urllib3.ProxyManager(settings.proxy, **options)
            if settings.proxy
            else urllib3.PoolManager(**options)
        )
        try:
            self._client = Minio(
                settings.host,
                settings.access_key,
                settings.secret_key,
                secure=settings.https,
                region=settings.region,
                http_client=self._http,
            )
        except ValueError as error:
            raise StorageError(f"cannot use the S3 store {settings.host}: {error}") from error
        if settings.dns_buckets:
            self._client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        else:
            self._client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]

    @property
    def location(self) -> str:
        """For messages."""
        return f"s3://{self.settings.host}/{self._name}"

    def make(self) -> None:
        """Create the bucket unless it exists."""
        with self.mapped("create", ""):
            if not self._client.bucket_exists(self._name):
                self._client.make_bucket(self._name)

    def stat(self, key: str) -> BucketObject | None:
        """An object as a listing would show it; None if there is none."""
        with self.mapped("look for", key):
            try:
                found = self._client.stat_object(self._name, key)
                return BucketObject(key, found.size or 0, found.etag or "")
            except S3Error as error:
                if error.code in _ABSENT:
                    return None
                raise

    def etag(self, key: str) -> str | None:
        """A tag that changes with an object's content; None if there is no such object."""
        found = self.stat(key)
        return None if found is None else found.etag

    def open(self, key: str) -> BucketReader | None:
        """An object to read; None if there is none."""
        with self.mapped("read", key):
            try:
                return BucketReader(self, key, self._client.get_object(self._name, key))
            except S3Error as error:
                if error.code in _ABSENT:
                    return None
                raise

    def put(
        self, key: str, source: BinaryIO, size: int, content_type: str, headers: Mapping[str, str]
    ) -> None:
        """Store an object: it appears whole or not at all."""
        extra = dict(headers)
        if self.settings.acl:
            extra["x-amz-acl"] = self.settings.acl
        with self.mapped("write", key):
            self._client.put_object(
                self._name,
                key,
                source,
                size,
                content_type,
                metadata=extra,  # type: ignore[arg-type] # its values may also be lists
                part_size=_PART,
                num_parallel_uploads=1,
            )

    def put_if(self, key: str, data: bytes, *, etag: str | None) -> str | None:
        """Store a small object if the present one has this ``etag``; None means there must be none.

        Returns its new etag, or None if the condition does not hold.
        """
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        with self.mapped("write", key):
            url = self._client.get_presigned_url("PUT", self._name, key, expires=_SIGNED_FOR)
            response = self._http.request("PUT", url, body=data, headers=condition)
            if response.status in (404, 409, 412):
                return None
            if response.status != 200:
                raise StorageError(
                    f"cannot write {self.location}/{key}: the store answered {response.status}"
                )
            return response.headers.get("ETag", "").strip('"')

    def objects(self, prefix: str) -> Iterator[BucketObject]:
        """All objects whose key begins with ``prefix``."""
        with self.mapped("list", prefix):
            for each in self._client.list_objects(self._name, prefix=prefix, recursive=True):
                if not each.is_dir and each.object_name:
                    yield BucketObject(each.object_name, each.size or 0, (each.etag or "").strip('"'))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; missing ones are ignored."""
        with self.mapped("delete from", ""):
            for error in self._client.remove_objects(self._name, (DeleteObject(key) for key in keys)):
                if error.code not in _ABSENT:
                    raise StorageError(f"cannot delete {self.location}/{error.name}: {error.message}")

    @contextmanager
    def mapped(self, what: str, key: str) -> Iterator[None]:
        """Translate the libraries' errors into ours."""
        place = f"{self.location}/{key}" if key else self.location
        try:
            yield
        except S3Error as error:
            advice = {
                "AccessDenied": "access is denied: check the rights of these keys",
                "InvalidAccessKeyId": "the store does not know this access key: check CVMFS_S3_ACCESS_KEY",
                "SignatureDoesNotMatch": "the signature is wrong: check CVMFS_S3_SECRET_KEY and _REGION",
                "NoSuchBucket": "the bucket does not exist",
            }.get(error.code or "", f"{error.code}: {error.message}")
            raise StorageError(f"cannot {what} {place}: {advice}") from error
        except (MinioException, HTTPError, OSError) as error:
            raise StorageError(
                f"cannot {what} {place}: {_reason(error)}; check that the S3 store is running, then try again"
            ) from error


def read_small(reader: BucketReader, limit: int) -> bytes | None:
    """All bytes of an object; None if there are more than ``limit``. Raises StorageError."""
    out = io.BytesIO()
    while data := reader.read(min(1 << 20, limit + 1 - out.tell())):
        out.write(data)
        if out.tell() > limit:
            return None
    return out.getvalue()


def _seconds(since: str | None, until: str | None) -> float:
    """Seconds between two times of one server; 0 if it does not state them."""
    with suppress(TypeError, ValueError):
        return (parsedate_to_datetime(until or "") - parsedate_to_datetime(since or "")).total_seconds()
    return 0.0


def _reason(error: BaseException) -> str:
    """The root cause in one line."""
    return " ".join(str(innermost(error)).split())[:300]
