"""Handing a new layer to the publisher, so that it lies in a repository like those below it.

Owns: the configuration (``config.json`` in the mount ``minio_ext_config``), the upload, and the wait for the
publisher service (format reference, section 18.4). Must not know: what a layer is made of.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self
from urllib.parse import urlsplit

import urllib3

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.thin import REPOSITORY_NAME, LayerLocation, ThinLayer
from cvmfs_graphdriver.publisher.errors import UploadError, innermost
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings

__all__ = ["LayerUploader", "UploadSettings"]

_log = logging.getLogger(__name__)

_FILE: Final = "config.json"
_LIMIT: Final = 1 << 16
_BUCKET: Final = "layers"
_PATIENCE: Final = 600.0
"""Seconds that publishing may take, and seeing it on this node after that."""
_UNKNOWN: Final = 60.0
"""Seconds that the publisher may know nothing of an upload."""
_POLL: Final = 0.5
_REPLY: Final = 4096
_STATUS: Final = "PublishStatusURL"


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """Where layers are uploaded, and who says what became of them."""

    store: S3Settings
    repository: str
    status_url: str

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read ``config.json`` in ``directory``; None if there is none. Raises UploadError."""
        file = directory / _FILE
        try:
            data = file.read_bytes()[: _LIMIT + 1]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UploadError(f"cannot read {file}: {error.strerror}") from error
        try:
            values = json.loads(data)
            texts = [values[name] for name in ("AccessKey", "AccessSecret", "Host", "CvmfsRepo", _STATUS)]
            https = values.get("SSL", False)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UploadError(f"{file} is not of the form that it should have: {error!r}") from error
        if not all(isinstance(text, str) and text for text in texts) or not isinstance(https, bool):
            raise UploadError(f"{file}: all values are texts, and SSL is true or false")
        key, secret, host, repository, status_url = texts
        if not REPOSITORY_NAME.fullmatch(repository):
            raise UploadError(f"{file}: CvmfsRepo {repository!r} is no name of a repository")
        if urlsplit(status_url).scheme not in {"http", "https"}:
            raise UploadError(f"{file}: PublishStatusURL {status_url!r} is no URL")
        store = S3Settings(host, _BUCKET, key, secret, https=https, acl="", timeout=30.0)
        return cls(store, repository, status_url.rstrip("/"))


class LayerUploader:
    """Publishes layers as ``config.json`` in ``directory`` says, if there is one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._problem = ""

    def publish(self, tar: BinaryIO, is_visible: Callable[[LayerLocation], bool]) -> ThinLayer | None:
        """Have the layer in ``tar`` published; it is there for this node when this returns.

        Returns None if it has to stay a normal layer: nobody has configured a publisher, or it fails, which
        ``status`` tells of then. A commit is worth more than where its layer lies.
        """
        try:
            settings = UploadSettings.load(self._directory)
            if settings is None:
                return None
            published = _publish(settings, tar, is_visible)
        except CvmfsGraphdriverError as error:
            self._problem = f"{error} ({time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())})"
            _log.warning("a new layer stays on this node, for it could not be published: %s", error)
            return None
        self._problem = ""
        _log.info("published %s", published.location.url)
        return published

    @property
    def is_configured(self) -> bool:
        """Whether somebody wants layers to be published."""
        return (self._directory / _FILE).exists()

    def status(self) -> tuple[str, str]:
        """What an administrator should see, without asking the network."""
        try:
            settings = UploadSettings.load(self._directory)
        except UploadError as error:
            return "Commit Through S3", f"degraded: {error}"
        if settings is None:
            return "Commit Through S3", "off: new layers stay normal layers"
        if self._problem:
            return "Commit Through S3", f"degraded: the last layer stayed a normal one: {self._problem}"
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
                raise UploadError(f"the publisher at {settings.status_url} still says {status!r} of {name}")
            time.sleep(_POLL)
    while not is_visible(location):
        if time.monotonic() > deadline:
            raise UploadError(f"{location.url} was published, but cannot be seen on this node")
        time.sleep(_POLL * 4)
    return ThinLayer(ContentDigest.parse(f"sha256:{name}"), location)


def _ask(http: urllib3.PoolManager, settings: UploadSettings, name: str) -> str:
    """What the publisher says of an upload. Raises UploadError: it says nothing."""
    url = f"{settings.status_url}/{name}"
    try:
        reply = http.request("GET", url, preload_content=False)
        try:
            text = reply.read(_REPLY).decode("utf-8", "replace").strip()
        finally:
            reply.close()
    except urllib3.exceptions.HTTPError as error:
        raise UploadError(
            f"cannot ask the publisher at {url}: {innermost(error)}; check that it runs"
        ) from error
    if reply.status != 200:
        raise UploadError(f"the publisher at {url} answers {reply.status}: {text[:300]}")
    return text
