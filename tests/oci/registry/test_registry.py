"""Against Debian's docker-registry; skopeo makes the images."""

import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import (
    ContentMismatchError,
    CredentialsError,
    ImageNotFoundError,
    OciError,
    RegistryReplyError,
    RegistryUnreachableError,
    UnsupportedImageError,
)
from cvmfs_graphdriver.oci.image.model import Image, Index, MediaType
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.image.reference import ImageReference
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.oci.registry import registry as oci_registry
from cvmfs_graphdriver.oci.registry.credentials import Credentials, DockerConfig, Keychain, SingleCredentials
from cvmfs_graphdriver.oci.registry.registry import Registry, RegistryImage
from cvmfs_graphdriver.oci.registry.transport import Transport, TransportSettings
from cvmfs_graphdriver.oci.verify import read_to_end
from demo.daemons import free_port
from tests.support.images import TestLayer, push, skopeo, write_layout
from tests.support.misbehaving_server import run_server
from tests.support.registry import (
    PASSWORD,
    USERNAME,
    Authority,
    RegistryServer,
    run_registry,
    run_token_server,
)
from tests.support.tars import tar_of

_LAYERS = (
    TestLayer(tar_of({"a": b"1" * 100_000, "b": None})),
    TestLayer(tar_of({"c": b"2"}), "zstd"),
    TestLayer(tar_of({"d": b"3"}), "gzip"),
)
_ADA = Credentials(USERNAME, PASSWORD)

Connect = Callable[..., Registry]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with run_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    write_layout(tmp_path / "layout", _LAYERS)
    return tmp_path / "layout"


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Makes registries and closes their connections."""
    with ExitStack() as stack:

        def make(
            host: str,
            credentials: Credentials | None = None,
            *,
            mirrors: tuple[str, ...] = (),
            **settings: object,
        ) -> Registry:
            network = TransportSettings(sleep=lambda _: None, **settings)  # type: ignore[arg-type]
            transport = Transport(network)
            stack.callback(transport.close)
            keychain: Keychain = DockerConfig(tmp_path / "docker/config.json")
            if credentials:
                keychain = SingleCredentials(host, credentials, keychain)
            return Registry(host, transport, keychain, mirrors=mirrors)

        yield make


def _load(registry: Registry, path: str, platform: Platform | None = None) -> Image:
    return load_image(RegistryImage(registry, ImageReference.parse(f"{registry.host}/{path}")), platform)


def _contents(registry: Registry, image: Image, repository: str) -> list[bytes]:
    found = []
    for layer in image.layers:
        with registry.blob(repository, layer.descriptor) as blob:
            found += [entry.path for entry in LayerStream("x", blob, layer.diff_id)]
    return found


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_an_image_is_read_whole(server: RegistryServer, tmp_path: Path, connect: Connect, form: str) -> None:
    compressions = ("gzip", "zstd", "gzip") if form == "oci" else ("gzip",) * 3
    layers = [replace(layer, compression=c) for layer, c in zip(_LAYERS, compressions, strict=True)]
    layout = tmp_path / "layout"
    write_layout(layout, layers)
    push(layout, f"{server.host}/whole/{form}:1", "--format", form)
    registry = connect(server.host)
    image = _load(registry, f"whole/{form}:1")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{server.host}/whole/{form}:1")
    assert image.manifest.raw == raw
    assert image.manifest.media_type == (
        MediaType.OCI_MANIFEST if form == "oci" else MediaType.DOCKER_MANIFEST
    )
    assert image.config.raw == skopeo(
        "inspect", "--config", "--raw", "--tls-verify=false", f"docker://{server.host}/whole/{form}:1"
    )
    assert image.origin == f"{server.host}/whole/{form}:1@{image.manifest.digest}"
    assert _contents(registry, image, f"whole/{form}") == [b"/a", b"/b", b"/c", b"/d"]


def test_an_image_by_its_digest(server: RegistryServer, layout: Path, connect: Connect) -> None:
    push(layout, f"{server.host}/digest:1")
    registry = connect(server.host)
    digest = _load(registry, "digest:1").manifest.digest
    assert _load(registry, f"digest@{digest}").manifest.digest == digest
    with pytest.raises(ImageNotFoundError, match="does not have image.*MANIFEST_UNKNOWN"):
        _load(registry, f"digest@sha256:{'0' * 64}")


def test_a_manifest_is_checked_by_its_digest(layout: Path, connect: Connect) -> None:
    manifest = (
        layout
        / "blobs/sha256"
        / json.loads((layout / "index.json").read_text())["manifests"][0]["digest"][7:]
    )
    digest = ContentDigest.of(manifest.read_bytes())
    lie = manifest.read_bytes() + b"\n"
    with run_server(lambda e: e.answer(200, lie, Content_Type=MediaType.OCI_MANIFEST)) as script:
        registry = connect(script.host)
        with pytest.raises(ContentMismatchError, match=f"expected {digest}"):
            _load(registry, f"x@{digest}")
    with (
        run_server(lambda e: e.answer(200, lie, Docker_Content_Digest=str(digest))) as script,
        pytest.raises(ContentMismatchError),
    ):
        connect(script.host).manifest(ImageReference.parse(f"{script.host}/x"))


def test_an_index_is_searched_for_the_platform(
    server: RegistryServer, tmp_path: Path, connect: Connect
) -> None:
    layout = tmp_path / "many"
    digests = {
        architecture: write_layout(
            layout, [TestLayer(tar_of({architecture: b""}))], architecture=architecture
        )
        for architecture in ("amd64", "arm64", "s390x")
    }
    index = json.loads((layout / "index.json").read_text())
    registry = connect(server.host)
    repository = "many"
    for blob in (layout / "blobs/sha256").iterdir():
        registry.upload_blob(repository, blob.read_bytes())
    for digest in digests.values():
        data = (layout / "blobs/sha256" / digest[7:]).read_bytes()
        reference = ImageReference.parse(f"{server.host}/many").with_digest(ContentDigest.parse(digest))
        registry.upload_manifest(reference, data, MediaType.OCI_MANIFEST)
    # What builders add about provenance is for no platform at all.
    index["manifests"].insert(
        0, {**index["manifests"][0], "platform": {"os": "unknown", "architecture": "unknown"}}
    )
    data = json.dumps(index).encode()
    registry.upload_manifest(ImageReference.parse(f"{server.host}/many:1"), data, MediaType.OCI_INDEX)
    assert isinstance(registry.manifest(ImageReference.parse(f"{server.host}/many:1")), Index)
    for architecture, digest in digests.items():
        image = _load(registry, "many:1", Platform.parse(architecture))
        assert str(image.manifest.digest) == digest
        assert _contents(registry, image, repository) == [b"/" + architecture.encode()]
    message = r"not available for linux/riscv64.*linux/amd64, linux/arm64"
    with pytest.raises(ImageNotFoundError, match=message):
        _load(registry, "many:1", Platform.parse("riscv64"))


def test_an_image_for_another_platform_is_not_taken_unasked(
    server: RegistryServer, tmp_path: Path, connect: Connect
) -> None:
    write_layout(tmp_path / "arm", _LAYERS, architecture="arm64")
    push(tmp_path / "arm", f"{server.host}/arm:1")
    registry = connect(server.host)
    assert str(_load(registry, "arm:1").config.platform) == "linux/arm64"
    with pytest.raises(ImageNotFoundError, match="is only for linux/arm64"):
        _load(registry, "arm:1", Platform.parse("amd64"))


def test_an_unknown_image_is_said_to_be(server: RegistryServer, connect: Connect) -> None:
    with pytest.raises(
        ImageNotFoundError, match=f"registry {server.host} does not have image {server.host}/no:1"
    ):
        _load(connect(server.host), "no:1")
    with pytest.raises(ImageNotFoundError, match="does not have the tags"):
        connect(server.host).tags("no")


def test_tags_are_listed_over_all_pages(server: RegistryServer, layout: Path, connect: Connect) -> None:
    registry = connect(server.host)
    push(layout, f"{server.host}/tags:0")
    image = _load(registry, "tags:0")
    for number in range(1, 120):
        reference = ImageReference.parse(f"{server.host}/tags:{number}")
        registry.upload_manifest(reference, image.manifest.raw, image.manifest.media_type)
    assert sorted(registry.tags("tags"), key=int) == [str(number) for number in range(120)]


def test_pages_of_tags_are_followed(connect: Connect) -> None:
    def act(exchange):  # type: ignore[no-untyped-def]
        if exchange.line == "GET /v2/":
            exchange.answer(200)
        elif "last=" not in exchange.line:
            link = '</v2/a/tags/list?n=1&last=x>; rel="next"'
            exchange.answer(200, b'{"name": "a", "tags": ["x"]}', Link=link)
        else:
            exchange.answer(200, b'{"name": "a", "tags": ["y"]}')

    with run_server(act) as script:
        assert connect(script.host).tags("a") == ["x", "y"]


@pytest.mark.parametrize(
    ("link", "tags", "complaint", "requests"),
    [
        ("</v2/a/tags/list?last=x>; rel=next", 1, "in circles", 2),
        ("</v2/a/tags/list?last={n}>; rel=next", 1, "on more than 50 pages", 50),
        ("</v2/a/tags/list?last={n}>; rel=next", 60_000, "more than 100000 of the tags", 2),
        ("</v2/a/tags/list?last={n}>; rel=next", 4_000_000, "more than 16777216 bytes", 1),
        ("", -1, "31m' among .*, which is not a valid tag", 1),
        ("<http://[::1>; rel=next", 1, "which is not a valid address", 1),
        ("<file:///etc/passwd>; rel=next", 1, "cannot reach|not an HTTP address|not a valid", 1),
    ],
)
def test_a_hostile_list_of_tags_ends(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    link: str,
    tags: int,
    complaint: str,
    requests: int,
) -> None:
    monkeypatch.setattr(oci_registry, "_MAX_PAGES", 50)
    pages = itertools.count(1)

    def act(exchange):  # type: ignore[no-untyped-def]
        if exchange.line == "GET /v2/":
            exchange.answer(200)
            return
        number = next(pages)
        names = json.dumps([f"{number}-{n}" for n in range(tags)]) if tags < 100_000 else '"' + "x" * 5 * tags
        if tags < 0:
            names = json.dumps(["1..\033[31m"])
        exchange.answer(200, f'{{"tags": {names}}}'.encode(), Link=link.format(n=number))

    with run_server(act) as script, pytest.raises(OciError, match=complaint):
        connect(script.host, attempts=1).tags("a")
    assert len(script.lines) == requests + 1


def test_blobs_are_uploaded_once(server: RegistryServer, connect: Connect) -> None:
    registry = connect(server.host)
    data = b"some blob"
    digest = ContentDigest.of(data)
    assert not registry.has_blob("up", digest)
    registry.upload_blob("up", data)
    assert registry.has_blob("up", digest)
    before = server.log.count("POST /v2/up/")
    registry.upload_blob("up", data)
    assert server.log.count("POST /v2/up/") == before
    assert server.blob_file(str(digest)).read_bytes() == data


def test_a_tampered_blob_is_an_error(server: RegistryServer, layout: Path, connect: Connect) -> None:
    push(layout, f"{server.host}/tampered:1")
    registry = connect(server.host)
    image = _load(registry, "tampered:1")
    file = server.blob_file(str(image.layers[0].descriptor.digest))
    before = file.read_bytes()
    try:
        for data, reason in (
            (before[:50] + bytes([before[50] ^ 1]) + before[51:], "does not match its digest"),
            (before[:-9], "ended after"),
            (before + b"x", "longer than"),
        ):
            file.write_bytes(data)
            blob = registry.blob("tampered", image.layers[0].descriptor)
            with blob, pytest.raises(ContentMismatchError, match=reason):
                read_to_end(blob)
        file.unlink()
        blob = registry.blob("tampered", image.layers[0].descriptor)
        with blob, pytest.raises(ImageNotFoundError, match="does not have blob"):
            read_to_end(blob)
    finally:
        file.write_bytes(before)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    directory = tmp_path_factory.mktemp("basic")
    with run_registry(directory, basic=True) as registry:
        write_layout(directory / "layout", _LAYERS)
        push(directory / "layout", f"{registry.host}/a:1", "--dest-creds", f"{USERNAME}:{PASSWORD}")
        yield registry


class TestBasic:
    def test_credentials_open_it(self, guarded: RegistryServer, connect: Connect) -> None:
        registry = connect(guarded.host, _ADA)
        assert len(_contents(registry, _load(registry, "a:1"), "a")) == 4
        registry.upload_blob("a", b"x")

    def test_docker_login_opens_it(self, guarded: RegistryServer, connect: Connect, tmp_path: Path) -> None:
        (tmp_path / "docker").mkdir()
        auth = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": auth}}}))
        assert _load(connect(guarded.host), "a:1").layers

    @pytest.mark.parametrize(
        "credentials", [None, Credentials(USERNAME, "wrong"), Credentials("bob", PASSWORD)]
    )
    def test_others_do_not(
        self, guarded: RegistryServer, connect: Connect, credentials: Credentials | None
    ) -> None:
        registry = connect(guarded.host, credentials)
        for action in (lambda: _load(registry, "a:1"), lambda: registry.upload_blob("a", b"y")):
            with pytest.raises(CredentialsError, match="check user name and password"):
                action()


class TestBearer:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority.create(tmp_path)

    def test_tokens_open_it(
        self, tmp_path: Path, authority: Authority, connect: Connect, layout: Path
    ) -> None:
        with (
            run_token_server(authority) as tokens,
            run_registry(tmp_path / "bearer", tls=authority, tokens=tokens) as server,
        ):
            ada = connect(server.host, _ADA, ca_file=authority.certificate_file)
            anybody = connect(server.host, ca_file=authority.certificate_file)
            ada.upload_blob("a", b"x")
            for blob in (layout / "blobs/sha256").iterdir():
                ada.upload_blob("a", blob.read_bytes())
            (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
            data = (layout / "blobs/sha256" / manifest["digest"][7:]).read_bytes()
            ada.upload_manifest(ImageReference.parse(f"{server.host}/a:1"), data, MediaType.OCI_MANIFEST)
            assert len(_contents(anybody, _load(anybody, "a:1"), "a")) == 4
            # One token for each scope, not one for each request.
            assert [line.partition("scope=")[2] for line in tokens.asked] == [
                "repository:a:pull,push",
                "repository:a:pull",
            ]
            with pytest.raises(CredentialsError, match="requires authentication"):
                anybody.upload_blob("a", b"y")
            wrong = connect(server.host, Credentials(USERNAME, "wrong"), ca_file=authority.certificate_file)
            with pytest.raises(CredentialsError, match="token server.*refuses the credentials"):
                wrong.upload_blob("a", b"y")

    def test_an_expired_token_is_renewed_on_the_way(
        self, tmp_path: Path, authority: Authority, connect: Connect
    ) -> None:
        with (
            run_token_server(authority) as tokens,
            run_registry(tmp_path / "bearer", tls=authority, tokens=tokens) as server,
        ):
            tokens.seconds = -58
            registry = connect(server.host, _ADA, ca_file=authority.certificate_file)
            registry.upload_blob("a", b"early")
            time.sleep(2.5)
            tokens.seconds = 300
            registry.upload_blob("a", b"late")
            assert len(tokens.asked) == 2

    def test_an_identity_token_opens_it(self, tmp_path: Path, authority: Authority, connect: Connect) -> None:
        with (
            run_token_server(authority) as tokens,
            run_registry(tmp_path / "bearer", tls=authority, tokens=tokens) as server,
        ):
            (tmp_path / "docker").mkdir()
            member = {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": tokens.identity_token}
            (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {server.host: member}}))
            connect(server.host, ca_file=authority.certificate_file).upload_blob("a", b"x")
            assert [line.partition(" ")[0] for line in tokens.asked] == ["POST"]


class TestMirrors:
    def test_a_mirror_is_read_instead(
        self, server: RegistryServer, layout: Path, connect: Connect, tmp_path: Path
    ) -> None:
        with run_registry(tmp_path / "mirror") as mirror:
            push(layout, f"{mirror.host}/m:1")
            push(layout, f"{server.host}/m:1")
            registry = connect(server.host, mirrors=(mirror.host,))
            before = len(server.log)
            assert len(_contents(registry, _load(registry, "m:1"), "m")) == 4
            assert "/v2/m/" not in server.log[before:]
            registry.upload_blob("m", b"uploads go to the registry itself")
            assert "PUT /v2/m/" in server.log[before:]

    def test_a_mirror_that_cannot_is_left_out(
        self, server: RegistryServer, layout: Path, connect: Connect
    ) -> None:
        push(layout, f"{server.host}/m:2")
        with run_server(lambda e: e.answer(404)) as empty, run_server(lambda e: e.answer(500)) as broken:
            away = f"127.0.0.1:{free_port()}"
            registry = connect(server.host, mirrors=(away, empty.host, broken.host), attempts=1)
            assert len(_contents(registry, _load(registry, "m:2"), "m")) == 4

    def test_credentials_of_the_registry_are_not_the_mirrors(self, connect: Connect) -> None:
        def act(exchange):  # type: ignore[no-untyped-def]
            exchange.answer(401, WWW_Authenticate='Basic realm="give me"')

        with run_server(act) as mirror, run_server(act) as own:
            registry = connect(own.host, _ADA, mirrors=(mirror.host,))
            with pytest.raises(CredentialsError):
                registry.tags("a")
        assert set(mirror.authorizations) == {None}
        assert len(set(own.authorizations)) == 2


def test_what_a_registry_complains_of_is_shown_without_its_control_characters(connect: Connect) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no\u001b[31m\nway"}]}).encode()

    def act(exchange):  # type: ignore[no-untyped-def]
        exchange.answer(200) if exchange.line == "GET /v2/" else exchange.answer(403, body)

    with (
        run_server(act) as script,
        pytest.raises(CredentialsError, match=r"denies access .*DENIED no\\x1b\[31m\\nway"),
    ):
        connect(script.host).tags("a")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RegistryReplyError),
        (403, CredentialsError),
        (418, RegistryReplyError),
        (429, RegistryReplyError),
    ],
)
def test_every_refusal_is_one_of_ours(connect: Connect, status: int, error: type[OciError]) -> None:
    def act(exchange):  # type: ignore[no-untyped-def]
        exchange.answer(200) if exchange.line == "GET /v2/" else exchange.answer(status, b"<html>")

    with run_server(act) as script, pytest.raises(error):
        connect(script.host).tags("a")


def test_what_is_no_registry_is_said_to_be(connect: Connect) -> None:
    with (
        run_server(lambda e: e.answer(404, b"<html>")) as script,
        pytest.raises(ImageNotFoundError, match="does not have its API"),
    ):
        connect(script.host).tags("a")
    with pytest.raises(RegistryUnreachableError, match="cannot reach"):
        connect(f"127.0.0.1:{free_port()}", attempts=1).tags("a")


def test_a_registry_elsewhere_is_never_asked_without_tls(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with run_server(lambda e: e.answer(200, b'{"tags": ["x"]}')) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        monkeypatch.setenv("https_proxy", f"http://{proxy.host}")
        with pytest.raises(RegistryUnreachableError):
            connect("registry.invalid", attempts=1).tags("a")
        assert proxy.lines == []
        allowed = connect("registry.invalid", attempts=1, insecure_hosts=frozenset({"registry.invalid"}))
        assert allowed.tags("a") == ["x"]
        assert proxy.lines[0] == "GET http://registry.invalid/v2/"


@pytest.mark.parametrize("location", ["http://[::1", "", "http://user@:x/"])
def test_an_upload_to_nowhere_is_an_error(connect: Connect, location: str) -> None:
    def act(exchange):  # type: ignore[no-untyped-def]
        if exchange.line.startswith("POST"):
            exchange.answer(202, Location=location)
        else:
            exchange.answer(404 if exchange.line.startswith("HEAD") else 200)

    with run_server(act) as script, pytest.raises(OciError):
        connect(script.host, attempts=1).upload_blob("a", b"x")


def test_an_artifact_that_is_no_image_is_refused(server: RegistryServer, connect: Connect) -> None:
    registry = connect(server.host)
    registry.upload_blob("chart", b"{}")
    config = {
        "mediaType": "application/vnd.cncf.helm.config.v1+json",
        "size": 2,
        "digest": str(ContentDigest.of(b"{}")),
    }
    data = json.dumps(
        {"schemaVersion": 2, "mediaType": MediaType.OCI_MANIFEST, "config": config, "layers": []}
    )
    registry.upload_manifest(
        ImageReference.parse(f"{server.host}/chart:1"), data.encode(), MediaType.OCI_MANIFEST
    )
    with pytest.raises(UnsupportedImageError, match="helm.*not a container image"):
        _load(registry, "chart:1")
