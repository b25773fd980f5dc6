"""The commands as users run them: a process, a real registry, a repository that our publisher made."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.oci.image.thin import ThinImage
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.storage.upstream import create_storage
from demo.daemons import free_port
from demo.seaweed import Seaweed
from tests.support.images import CONFIG, TestLayer, push, skopeo, write_layout
from tests.support.registry import PASSWORD, USERNAME, RegistryServer, run_registry
from tests.support.storage_site import FQRN, Site
from tests.support.tars import tar_of

_LAYERS = [
    TestLayer(tar_of({"etc": None, "etc/a": b"one", "etc/b": b"two"})),
    TestLayer(tar_of({"etc/.wh.a": b"", "etc/c": b"three" * 10_000}), "zstd"),
    TestLayer(tar_of({"odd \N{SNOWMAN}": b"x"}), "gzip"),
]


@dataclass(frozen=True)
class _Done:
    status: int
    out: str
    complaint: str

    @property
    def line(self) -> str:
        """The one line of a failure."""
        assert self.out == ""
        (line,) = self.complaint.splitlines()
        assert line.startswith("docker2cvmfs: ")
        return line.removeprefix("docker2cvmfs: ")


def _run(*arguments: str, stdin: str = "", home: Path | None = None) -> _Done:
    program = Path(sys.executable).with_name("docker2cvmfs")
    done = subprocess.run(
        [program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "error", "DOCKER_CONFIG": str(home or "/nonexistent")},
    )
    return _Done(done.returncode, done.stdout, done.stderr)


def _places(site: Site) -> list[str]:
    """The options that say where the repository is."""
    return ["-r", FQRN, "--storage", str(site.storage), "--keys", str(site.keys)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    directory = tmp_path_factory.mktemp("registry")
    with run_registry(directory) as registry:
        write_layout(directory / "layout", _LAYERS)
        push(directory / "layout", f"{registry.host}/app:1")
        yield registry


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.sign_for_today()
    return site


@pytest.fixture
def image(server: RegistryServer) -> str:
    return f"{server.host}/app:1"


def _inspect(reference: str, *options: str) -> Any:
    return json.loads(skopeo("inspect", "--tls-verify=false", *options, f"docker://{reference}"))


def test_make_thin_end_to_end(server: RegistryServer, site: Site, image: str, tmp_path: Path) -> None:
    output = f"{server.host}/thin/app:1"
    done = _run("make-thin", "-i", image, "-o", output, *_places(site))
    assert done.status == 0, done.complaint
    assert done.out == f"{output}@{_inspect(output)['Digest']}\n"
    assert "3 new layers" in done.complaint
    for layer in _LAYERS:
        tree = site.tree(b"/layers/" + layer.digest[7:].encode())
        assert len(tree) > 1
    top = site.tree(b"/layers/" + _LAYERS[1].digest[7:].encode())
    assert top[b"/etc/c"][1] == b"three" * 10_000
    assert b"/etc/.wh.a" in top
    # The pushed image: Docker's types, the whole configuration, one layer with the right thin.json.
    manifest = _inspect(output, "--raw")
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    config = _inspect(output, "--config", "--raw")
    source = _inspect(image, "--config", "--raw")
    assert config["config"] == source["config"] == CONFIG
    kept = source.keys() - {"rootfs", "history"}
    assert {key: config[key] for key in kept} == {key: source[key] for key in kept}
    skopeo(
        "copy", "--insecure-policy", "--src-tls-verify=false", f"docker://{output}", f"dir:{tmp_path}/copy"
    )
    (layer_descriptor,) = manifest["layers"]
    blob = tmp_path / "copy" / layer_descriptor["digest"][7:]
    unpacked = subprocess.run(["tar", "-xzOf", blob, "thin.json"], check=True, capture_output=True).stdout
    thin = ThinImage.parse(unpacked)
    assert [each.digest.hex for each in thin.layers] == [each.digest[7:] for each in _LAYERS]
    assert {each.location.repository for each in thin.layers} == {FQRN}
    assert thin.origin == f"{image}@{_inspect(image)['Digest']}"
    assert _run("thin", image, f"{FQRN}/layers").out.encode() == unpacked


def test_several_images_are_one_revision(server: RegistryServer, site: Site, image: str) -> None:
    before = site.open().manifest().revision
    names = [(image, "one"), (f"{server.host}/absent:1", "none"), (image, "two")]
    options = [word for i, o in names for word in ("-i", i, "-o", f"{server.host}/several/{o}:1")]
    done = _run("make-thin", *options, *_places(site), "--json")
    assert done.status == 65, done.complaint
    one, none, two = (json.loads(line) for line in done.out.splitlines())
    assert [(a["new_layers"], a["shared_layers"], a["pushed"]) for a in (one, two)] == [
        (3, 0, True),
        (0, 3, True),
    ]
    assert none["exit_code"] == 34
    assert {one["revision"], two["revision"], site.open().manifest().revision} == {before + 1}
    assert "1 of 3 images" in done.complaint.splitlines()[-1]
    assert _run("make-thin", "-i", image, "-i", image, "-o", "x", *_places(site)).status == 2


def test_make_thin_again_does_nothing_and_says_so(server: RegistryServer, site: Site, image: str) -> None:
    arguments = ["make-thin", "-i", image, "-o", f"{server.host}/thin/again:1", *_places(site)]
    first = _run(*arguments)
    before, asked = site.files(), server.log.count("GET /v2/app/blobs/")
    again = _run(*arguments, "--json")
    assert again.status == 0
    assert site.files() == before
    # Only the configuration is read.
    assert server.log.count("GET /v2/app/blobs/") == asked + 1
    account = json.loads(again.out)
    assert account["thin_image"] == first.out.strip()
    assert (account["new_layers"], account["shared_layers"], account["fetched_bytes"]) == (0, 3, 0)
    assert account["saved_bytes"] == sum(len(layer.blob) for layer in _LAYERS)
    assert "3 shared" in again.complaint


def test_make_thin_warns_of_a_whitelist_that_ends(server: RegistryServer, site: Site, image: str) -> None:
    site.clock = time.time() - 31 * 86400
    site.open().resign()
    done = _run("make-thin", "-i", image, "-o", f"{server.host}/thin/late:1", *_places(site))
    assert done.status == 0
    warning = done.complaint.splitlines()[0]
    assert warning.startswith(f"docker2cvmfs: warning: the whitelist of {FQRN} expired on 20")
    assert warning.endswith(f"its owner must sign it again (cvmfs-graphdriver repo resign {FQRN})")


def test_an_oci_thin_image_carries_annotations(server: RegistryServer, site: Site, image: str) -> None:
    output = f"{server.host}/thin/oci:1"
    assert _run("make-thin", "-i", image, "-o", output, *_places(site), "--format", "oci").status == 0
    annotations = _inspect(output, "--raw")["annotations"]
    assert annotations["org.cernvm.thin-image.origin"].startswith(image)
    assert annotations["made.by"] == "tests"


def test_layers_go_where_they_are_told_to(server: RegistryServer, site: Site, image: str) -> None:
    output = f"{server.host}/thin/sub:1"
    done = _run("make-thin", "-i", image, "-o", output, *_places(site), "-s", "/some/where/")
    assert done.status == 0
    assert site.tree(f"/some/where/{_LAYERS[0].digest[7:]}".encode())


def test_the_unpacked_layout_records_the_manifest(server: RegistryServer, site: Site, image: str) -> None:
    output = f"{server.host}/thin/unpacked:1"
    done = _run("make-thin", "-i", image, "-o", output, *_places(site), "--unpacked-layout")
    assert done.status == 0, done.complaint
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{image}")
    assert site.tree(f"/.metadata/{image}/manifest.json".encode())[b""][1] == raw
    digest = _LAYERS[0].digest[7:]
    assert site.tree(f"/.layers/{digest[:2]}/{digest}/layerfs/etc/a".encode())[b""][1] == b"one"


def test_manifest_and_config_print_what_the_registry_has(server: RegistryServer, image: str) -> None:
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{image}").decode()
    assert _run("manifest", image).out == raw + "\n"
    config = skopeo("inspect", "--config", "--raw", "--tls-verify=false", f"docker://{image}").decode()
    assert _run("config", image).out == config + "\n"
    for registry in (f"http://{server.host}/v2", f"http://{server.host}", server.host):
        assert _run("--registry", registry, "manifest", "app:1").out == raw + "\n"


def test_pull_writes_files_and_prints_their_names(image: str, tmp_path: Path) -> None:
    done = _run("pull", image, str(tmp_path / "out"))
    names = [f"{tmp_path}/out/{layer.digest[7:]}.tar.gz" for layer in _LAYERS]
    assert done == _Done(0, "".join(f"{name}\n" for name in names), "")
    assert hashlib.sha256(Path(names[0]).read_bytes()).hexdigest() in names[0]
    as_json = _run("pull", "--json", image, str(tmp_path / "out"))
    assert json.loads(as_json.out) == {"image": image, "files": names}


def test_killed_anywhere_it_leaves_the_old_revision_or_the_new(
    server: RegistryServer, site: Site, tmp_path: Path
) -> None:
    layers = [TestLayer(tar_of({f"{n}/{m}": os.urandom(200_000) for m in range(12)})) for n in range(3)]
    write_layout(tmp_path / "layout", layers)
    push(tmp_path / "layout", f"{server.host}/killed:1")
    program = Path(sys.executable).with_name("docker2cvmfs")
    output = f"{server.host}/thin/killed:1"
    arguments = ["make-thin", "-i", f"{server.host}/killed:1", "-o", output, *_places(site)]
    old = site.open().manifest()
    for step in range(8):
        process = subprocess.Popen(
            [program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(0.25 + 0.08 * step)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        now = site.open().manifest()
        if now != old:
            break
        assert site.findings() == []
    done = _run(*arguments)
    assert done.status == 0, done.complaint
    assert site.open().manifest().revision == old.revision + 1
    site.clock = time.time()
    assert [finding for finding in site.findings() if "whitelist" not in finding] == []
    for layer in layers:
        assert len(site.tree(b"/layers/" + layer.digest[7:].encode())) == 14


class TestCredentials:
    @pytest.fixture
    def guarded(self, tmp_path: Path) -> Iterator[str]:
        write_layout(tmp_path / "layout", _LAYERS)
        with run_registry(tmp_path / "guarded", basic=True) as registry:
            push(tmp_path / "layout", f"{registry.host}/app:1", "--dest-creds", f"{USERNAME}:{PASSWORD}")
            yield registry.host

    def test_a_password_comes_from_standard_input(self, guarded: str) -> None:
        login = ["--registry", guarded, "--username", USERNAME, "--password-stdin"]
        assert _run(*login, "config", "app:1", stdin=f"{PASSWORD}\n").status == 0
        assert _run(*login, "config", "app:1", stdin="wrong\n").status == 33

    def test_docker_logins_password_is_used(self, guarded: str, tmp_path: Path) -> None:
        auth = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded: {"auth": auth}}}))
        assert _run("config", f"{guarded}/app:1", home=tmp_path).status == 0
        assert _run("--docker-config", str(tmp_path), "config", f"{guarded}/app:1").status == 0

    def test_wrong_credentials_are_one_line(self, guarded: str, site: Site) -> None:
        before = site.files()
        done = _run("make-thin", "-i", f"{guarded}/app:1", "-o", f"{guarded}/thin:1", *_places(site))
        assert done.status == 33
        assert "check user name and password, run docker login" in done.line
        assert site.files() == before

    def test_the_target_is_asked_before_layers_are_fetched(
        self, guarded: str, server: RegistryServer, site: Site, image: str
    ) -> None:
        before, asked = site.files(), server.log.count("GET /v2/app/blobs/")
        done = _run("make-thin", "-i", image, "-o", f"{guarded}/thin:1", *_places(site))
        assert done.status == 33
        assert site.files() == before
        assert server.log.count("GET /v2/app/blobs/") == asked + 1


class TestBadInput:
    """One clear line each that says what to do, the documented exit code, and nothing left behind."""

    def _refused(self, site: Site, *arguments: str) -> _Done:
        before = site.files()
        done = _run("make-thin", *_places(site), *arguments)
        assert site.files() == before
        return done

    def test_an_unreachable_registry(self, site: Site) -> None:
        host = f"127.0.0.1:{free_port()}"
        done = self._refused(site, "-i", f"{host}/app:1", "-o", f"{host}/thin:1")
        assert done.status == 31
        assert f"cannot reach {host}" in done.line
        assert "check the name, the port and the network" in done.line

    def test_an_unknown_image(self, site: Site, server: RegistryServer) -> None:
        done = self._refused(site, "-i", f"{server.host}/no:1", "-o", f"{server.host}/thin:1")
        assert done.status == 34
        assert f"does not have image {server.host}/no:1" in done.line

    def test_an_unsupported_media_type(self, site: Site, server: RegistryServer, tmp_path: Path) -> None:
        layer = TestLayer(tar_of({}), media_type="application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
        write_layout(tmp_path / "odd", [_LAYERS[0], layer])
        skopeo(
            *("copy", "--insecure-policy", "--dest-tls-verify=false"),
            *(f"oci:{tmp_path}/odd:latest", f"docker://{server.host}/odd:1"),
        )
        done = self._refused(site, "-i", f"{server.host}/odd:1", "-o", f"{server.host}/thin:1")
        assert done.status == 35
        assert "unsupported media type" in done.line

    def test_a_platform_that_is_not_there(self, site: Site, server: RegistryServer, image: str) -> None:
        done = self._refused(site, "-i", image, "-o", f"{server.host}/thin:1", "--platform", "linux/s390x")
        assert done.status == 34
        assert "not for linux/s390x" in done.line

    def test_no_image_at_all(self, site: Site) -> None:
        done = self._refused(site, "-i", "Not An Image", "-o", "thin:1")
        assert done.status == 30
        assert "write [HOST[:PORT]/]NAME[:TAG][@DIGEST]" in done.line

    def test_a_repository_without_key(self, site: Site, server: RegistryServer, image: str) -> None:
        (site.keys / f"{FQRN}.key").unlink()
        done = self._refused(site, "-i", image, "-o", f"{server.host}/thin:1")
        assert done.status == 44
        assert f"{site.keys}/{FQRN}.key" in done.line

    def test_no_repository(self, site: Site, server: RegistryServer, image: str, tmp_path: Path) -> None:
        target = ["-i", image, "-o", f"{server.host}/thin:1"]
        nowhere = ["-r", FQRN, "--keys", str(site.keys), "--storage", str(tmp_path / "nowhere")]
        done = _run("make-thin", *target, *nowhere)
        assert done.status == 40
        assert "create" in done.line
        assert not (tmp_path / "nowhere").exists()

    def test_a_thin_image(self, site: Site, server: RegistryServer, image: str) -> None:
        thin = f"{server.host}/thin/twice:1"
        assert _run("make-thin", "-i", image, "-o", thin, *_places(site)).status == 0
        done = self._refused(site, "-i", thin, "-o", thin)
        assert done.status == 60
        assert "is already a thin image" in done.line

    def test_usage(self, image: str) -> None:
        assert _run("make-thin", "-i", image, "-o", "thin:1").status == 2
        assert _run("--username", "ada", "config", image).status == 2
        assert _run("--registry", "ftp://x", "config", image).status == 2
        assert _run("config", image, "--platform", "a/b/c/d").status == 2

    @pytest.mark.root
    def test_a_full_disk(self, server: RegistryServer, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
        try:
            site = Site(disk)
            site.sign_for_today()
            content = {f"file-{number}": os.urandom(1 << 20) for number in range(24)}
            write_layout(tmp_path / "big", [_LAYERS[0], TestLayer(tar_of(content))])
            push(tmp_path / "big", f"{server.host}/big:1")
            done = self._refused(site, "-i", f"{server.host}/big:1", "-o", f"{server.host}/thin/big:1")
            assert done.status == 41
            assert "the disk is full: free some space and try again" in done.line
            # There is room again for something smaller.
            output = f"{server.host}/thin/small:1"
            small = _run("make-thin", "-i", f"{server.host}/app:1", "-o", output, *_places(site))
            assert small.status == 0, small.complaint
        finally:
            subprocess.run(["umount", disk], check=True)


def test_a_repository_in_s3_has_the_objects_that_one_on_disk_has(
    server: RegistryServer, site: Site, image: str, tmp_path: Path, s3: Seaweed
) -> None:
    configuration, keys = s3.configuration("docker2cvmfs"), tmp_path / "s3-keys"
    store = create_storage(configuration, FQRN)
    create_repository(FQRN, store, keys)
    words = ["make-thin", "-i", image, "-o", f"{server.host}/thin/s3:1", "--json"]
    in_s3 = ["-r", FQRN, "--storage", str(configuration), "--keys", str(keys)]
    done = _run(*words, *in_s3)
    assert done.status == 0, done.complaint
    assert json.loads(done.out)["new_layers"] == len(_LAYERS)
    assert json.loads(_run(*words, *in_s3).out)["shared_layers"] == len(_LAYERS)
    assert _run(*words, *_places(site)).status == 0
    # What files hold, but not what the two runs made at different times: catalogs, history, metainfo.
    contents = {name for name in site.files() if name.startswith("data/") and name[-1] not in "CHMX"}
    assert {name for name, _ in store.objects() if name[-1] not in "CHMX"} == contents
    for name in contents:
        assert store.get(name, limit=1 << 30) == (site.storage / name).read_bytes()
    assert len(contents) >= 5
