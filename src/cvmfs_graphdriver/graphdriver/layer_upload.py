"""Uploading a new layer to the publisher, which adds it to a repository like the layers below it.

Owns: the configuration (``config.json`` in the mount ``minio_ext_config``), the upload, and the wait for the
publisher service (format reference, section 18.4). Must not know: what a layer contains.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

import urllib3

from cvmfs_graphdriver.client.addresses import is_address
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.thin import REPOSITORY_NAME, LayerLocation, ThinLayer
from cvmfs_graphdriver.publisher.errors import UploadError, innermost
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings

__all__ = ["LayerUploader", "UploadSettings"]

_log = logging.getLogger(__name__)

_FILE: Final = "config.json"
_CONFIG_LIMIT: Final = 1 << 16
_BUCKET: Final = "layers"
_PATIENCE: Final = 600.0
"""Seconds until the layer must be published and visible on this node."""
_UNKNOWN: Final = 60.0
"""Seconds until the publisher must have noticed an upload."""
_POLL: Final = 0.5
_REPLY_LIMIT: Final = 4096
_STATUS: Final = "PublishStatusURL"


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """Where layers are uploaded to, and which URL reports their status."""

    store: S3Settings
    repository: str
    status_url: str

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read ``config.json`` in ``directory``; None if there is none. Raises UploadError."""
        file = directory / _FILE
        try:
            data = file.read_bytes()[: _CONFIG_LIMIT + 1]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UploadError(f"cannot read {file}: {error.strerror}") from error
        try:
            values = json.loads(data)
            texts = [values[name] for name in ("AccessKey", "AccessSecret", "Host", "CvmfsRepo", _STATUS)]
            https = values.get("SSL", False)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UploadError(f"{file} is not a valid configuration: {error!r}") from error
        if not all(isinstance(text, str) and text for text in texts) or not isinstance(https, bool):
            raise UploadError(f"{file}: all values must be strings, except SSL, which is true or false")
        key, secret, host, repository, status_url = texts
        if not REPOSITORY_NAME.fullmatch(repository):
            raise UploadError(f"{file}: CvmfsRepo {repository!r} is not a valid repository name")
        if not (is_address(status_url) and status_url.startswith(("http://", "https://"))):
            raise UploadError(f"{file}: PublishStatusURL {status_url!r} is not a valid URL")
        store = S3Settings(host, _BUCKET, key, secret, https=https, acl="", timeout=30.0)
        return cls(store, repository, status_url.rstrip("/"))


class LayerUploader:
    """Uploads layers as configured by ``config.json`` in ``directory``, if that exists."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._problem = ""

    def publish(self, tar: BinaryIO, is_visible: Callable[[LayerLocation], bool]) -> ThinLayer | None:
        """Upload the layer in ``tar`` and wait until it is published and visible on this node.

        Returns None if it must remain a normal layer: no publisher is configured, or publishing fails, which
        ``status`` then reports. A failure here must not make ``docker commit`` fail.
        """
        try:
            settings = UploadSettings.load(self._directory)
            if settings is None:
                return None
            published = _publish(settings, tar, is_visible)
        except CvmfsGraphdriverError as error:
            self._problem = f"{error} ({time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())})"
            _log.warning("a new layer remains on this node, since it could not be published: %s", error)
            return None
        self._problem = ""
        _log.info("published %s", published.location.url)
        return published

    @property
    def is_configured(self) -> bool:
        """Whether new layers are to be published."""
        return (self._directory / _FILE).exists()

    def status(self) -> tuple[str, str]:
        """A row for ``docker info``, made without network access."""
        try:
            settings = UploadSettings.load(self._directory)
        except UploadError as error:
            return "Commit Through S3", f"degraded: {error}"
        if settings is None:
            return "Commit Through S3", "off: new layers remain normal layers"
        if self._problem:
            return "Commit Through S3", f"degraded: the last layer could not be published: {self._problem}"
        return "Commit Through S3", f"to {settings.repository} by {settings.store.host}"


def _publish(
    settings: UploadSettings, tar: BinaryIO, is_visible: Callable[[LayerLocation], bool]
) -> ThinLayer:
    """Upload and wait. Raises StorageError, UploadError."""
    from cvmfs_graphdriver.publisher.storage.bucket import Bucket

    hasher = hashlib.sha256()
    while data := tar.read(1 << 20):
        hasher.update(data)
    name = hasher.hexdigest()
    location = LayerLocation(settings.repository, f"/layers/{name}".encode())
    http = urllib3.PoolManager(
        retries=urllib3.Retry(3, backoff_factor=0.5, redirect=0), timeout=urllib3.Timeout(10.0)
    )
    deadline = time.monotonic() + _PATIENCE
    if _ask(http, settings, name) != "done":
        size = tar.tell()
        tar.seek(0)
        Bucket(settings.store).put(name, tar, size, "application/x-tar", {})
        known = time.monotonic()
        while (status := _ask(http, settings, name)) != "done":
            if status.startswith("failed"):
                raise UploadError(f"the publisher refused the layer {name}: {status}")
            if status == "publishing":
                known = time.monotonic()
            if time.monotonic() > min(deadline, known + _UNKNOWN):
                raise UploadError(
                    f"the publisher at {settings.status_url} still reports {status!r} for {name}"
                )
            time.sleep(_POLL)
    while not is_visible(location):
        if time.monotonic() > deadline:
            raise UploadError(f"{location.url} was published, but is not visible on this node")
        time.sleep(_POLL * 4)
    return ThinLayer(ContentDigest.parse(f"sha256:{name}"), location)


def _ask(http: urllib3.PoolManager, settings: UploadSettings, name: str) -> str:
    """The status of an upload. Raises UploadError: the publisher does not answer."""
    url = f"{settings.status_url}/{name}"
    try:
        reply = http.request("GET", url, preload_content=False)
        try:
            text = reply.read(_REPLY_LIMIT).decode("utf-8", "replace").strip()
        finally:
            reply.close()
    except urllib3.exceptions.HTTPError as error:
        raise UploadError(
            f"cannot reach the publisher at {url}: {innermost(error)}; check that it is running"
        ) from error
    if reply.status != 200:
        raise UploadError(f"the publisher at {url} answered with {reply.status}: {text[:300]}")
    return text
