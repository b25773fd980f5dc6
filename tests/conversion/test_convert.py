import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.convert import (
    Conversion,
    Intake,
    convert,
    describe,
    distinct_layers,
)
from cvmfs_graphdriver.conversion.errors import AlreadyThinError, LayerPlaceError
from cvmfs_graphdriver.conversion.layout import DirectoryLayout, LayerLayout, UnpackedLayout
from cvmfs_graphdriver.oci.errors import ContentMismatchError, LayerFormatError, UnsupportedImageError
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.model import MediaType
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.publisher.errors import BusyError
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.entry import EntryFlag
from cvmfs_graphdriver.repository.catalog.xattr import parse_xattrs
from tests.support.images import TestLayer, write_layout
from tests.support.storage_site import FQRN, Site
from tests.support.tars import tar_of
from tests.support.watcher import Watcher

_LAYOUT = DirectoryLayout(b"/layers")
_BASE = TestLayer(tar_of({"etc": None, "etc/a": b"one", "etc/b": b"two"}))
_MIDDLE = TestLayer(
    tar_of({"etc/.wh.a": b"", "etc/c": b"three", "opt": None, "opt/.wh..wh..opq": b""}), "zstd"
)
_TOP = TestLayer(tar_of({"etc/c": b"four"}), "plain")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _image(tmp_path: Path, *layers: TestLayer) -> LayoutImage:
    directory = tmp_path / f"image-{len(list(tmp_path.iterdir()))}"
    write_layout(directory, layers)
    return LayoutImage(directory)


def _convert(site: Site, source: LayoutImage, layout: LayerLayout = _LAYOUT) -> tuple[Conversion, Watcher]:
    progress = Watcher()
    return convert(source, load_image(source, None), site.open(), layout, progress), progress


def _layer(site: Site, layer: TestLayer) -> dict[bytes, bytes]:
    tree = site.tree(b"/layers/" + layer.digest[7:].encode())
    return {path: content for path, (_, content) in tree.items()}


def test_every_layer_is_a_nested_catalog_with_its_whiteouts_as_they_are(tmp_path: Path, site: Site) -> None:
    before = site.open().manifest().revision
    conversion, progress = _convert(site, _image(tmp_path, _BASE, _MIDDLE, _TOP))
    assert _layer(site, _BASE) == {b"": b"", b"/etc": b"", b"/etc/a": b"one", b"/etc/b": b"two"}
    assert _layer(site, _MIDDLE) == {
        b"": b"",
        b"/etc": b"",
        b"/etc/.wh.a": b"",
        b"/etc/c": b"three",
        b"/opt": b"",
        b"/opt/.wh..wh..opq": b"",
    }
    assert _layer(site, _TOP) == {b"": b"", b"/etc": b"", b"/etc/c": b"four"}
    digests = [layer.digest for layer in (_BASE, _MIDDLE, _TOP)]
    assert [str(layer.digest) for layer in conversion.thin.layers] == digests
    assert [layer.location.url for layer in conversion.thin.layers] == [
        f"cvmfs://{FQRN}/layers/{digest[7:]}" for digest in digests
    ]
    root, _ = site.tree(b"/layers/" + _BASE.digest[7:].encode())[b""]
    assert EntryFlag.NESTED_ROOT in root.flags
    assert sorted(progress.begun) == sorted(progress.finished) == sorted(digests)
    assert progress.bytes == sum(len(layer.blob) for layer in (_BASE, _MIDDLE, _TOP))
    # All in one transaction.
    assert site.open().manifest().revision == conversion.revision == before + 1


def test_what_is_there_is_neither_fetched_nor_published_again(tmp_path: Path, site: Site) -> None:
    _convert(site, _image(tmp_path, _BASE, _MIDDLE))
    before = site.files()
    conversion, progress = _convert(site, _image(tmp_path, _BASE, _MIDDLE))
    assert site.files() == before
    assert (conversion.new, len(conversion.shared), progress.bytes) == ((), 2, 0)
    conversion, progress = _convert(site, _image(tmp_path, _BASE, _MIDDLE, _TOP))
    assert [str(layer.descriptor.digest) for layer in conversion.new] == [_TOP.digest]
    assert len(conversion.shared) == 2
    assert progress.bytes == len(_TOP.blob)
    assert _layer(site, _TOP)[b"/etc/c"] == b"four"


def test_files_that_another_layer_brought_are_stored_once(tmp_path: Path, site: Site) -> None:
    _convert(site, _image(tmp_path, _BASE))
    again = TestLayer(tar_of({"elsewhere": b"one", "new": b"never seen"}))
    conversion, _ = _convert(site, _image(tmp_path, again))
    assert conversion.known_objects == 1 + 1  # with the empty object of the catalog's marker


def test_a_layer_that_occurs_twice_counts_where_it_is_topmost(tmp_path: Path, site: Site) -> None:
    source = _image(tmp_path, _BASE, _TOP, _MIDDLE, _TOP)
    image = load_image(source, None)
    assert [str(layer.descriptor.digest) for layer in distinct_layers(image)] == [
        layer.digest for layer in (_BASE, _MIDDLE, _TOP)
    ]
    conversion, _ = _convert(site, source)
    assert len(conversion.thin.layers) == 3


def test_the_directory_of_layers_has_a_catalog_of_its_own(tmp_path: Path, site: Site) -> None:
    _convert(site, _image(tmp_path, _BASE))
    _convert(site, _image(tmp_path, _BASE, _TOP))
    root, layers = site.catalog(), site.catalog(b"/layers")
    assert {reference.path for reference in root.nested()} == {b"/layers", b"/.chains"}
    assert {reference.path for reference in layers.nested()} == {
        b"/layers/" + layer.digest[7:].encode() for layer in (_BASE, _TOP)
    }
    root.close()
    layers.close()
    assert site.findings() == []


class TestUnpackedLayout:
    @staticmethod
    def _home(layer: TestLayer) -> bytes:
        return f"/.layers/{layer.digest[7:9]}/{layer.digest[7:]}".encode()

    def _origin(self, site: Site, layer: TestLayer) -> list[str]:
        data = site.tree(self._home(layer) + b"/.metadata/origin.json")[b""][1]
        origins: list[str] = json.loads(data)["origin"]
        return origins

    def test_layers_have_their_metadata_beside_them(self, tmp_path: Path, site: Site) -> None:
        source = _image(tmp_path, _BASE, _TOP)
        conversion, _ = _convert(site, source, UnpackedLayout())
        tree = site.tree()
        for layer, thin in zip((_BASE, _TOP), conversion.thin.layers, strict=True):
            home = self._home(layer)
            assert thin.location.path == home + b"/layerfs"
            assert site.tree(thin.location.path)[b"/etc"][0].is_directory
            (record,) = json.loads(site.tree(home + b"/.metadata/layers.json")[b""][1])
            assert record == {
                "id": layer.diff_id[7:],
                "created": "2024-01-02T03:04:05Z",
                "compressed-diff-digest": layer.digest,
                "compressed-size": len(layer.blob),
                "diff-digest": layer.diff_id,
            }
            assert self._origin(site, layer) == [str(load_image(source, None).manifest.config.digest)]
            for path in (b"/.layers", home.rpartition(b"/")[0]):
                assert EntryFlag.NESTED_ROOT in tree[path][0].flags
        assert site.findings() == []

    def test_each_image_that_uses_a_layer_is_named_once(self, tmp_path: Path, site: Site) -> None:
        first, second = _image(tmp_path, _BASE, _TOP), _image(tmp_path, _BASE)
        for source in (first, second):
            _convert(site, source, UnpackedLayout())
        before = site.files()
        conversion, _ = _convert(site, second, UnpackedLayout())
        assert (conversion.new, site.files()) == ((), before)
        configs = [str(load_image(source, None).manifest.config.digest) for source in (first, second)]
        assert self._origin(site, _BASE) == configs
        assert self._origin(site, _TOP) == configs[:1]
        assert site.findings() == []


def _make_odd_tree(root: Path) -> None:
    (root / "d").mkdir(parents=True)
    (root / "d/suid").write_bytes(b"x" * 100)
    os.chmod(root / "d/suid", 0o6711)
    os.chown(root / "d", 1234, 4_000_000_000)
    os.setxattr(root / "d/suid", "user.short", b"\0\xff")
    os.setxattr(root / "d/suid", "user.long", b"x" * 300)
    os.link(root / "d/suid", root / "other name")
    os.symlink("../\N{SNOWMAN}", root / "link")
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"\xff")).write_bytes(b"not utf-8")
    with (root / "sparse").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    (root / "big").write_bytes(os.urandom(12 << 20))
    for path in (root / "d/suid", root / "d", root):
        os.utime(path, ns=(1_600_000_000_123_456_789,) * 2)


@pytest.mark.root
def test_every_attribute_arrives(tmp_path: Path, site: Site) -> None:
    tree = tmp_path / "tree"
    _make_odd_tree(tree)
    tar = subprocess.run(
        ["tar", "-C", tree, "--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "-c", "."],
        check=True,
        capture_output=True,
    ).stdout
    layer = TestLayer(tar)
    conversion, _ = _convert(site, _image(tmp_path, layer))
    found = site.tree(b"/layers/" + layer.digest[7:].encode())
    base = os.fsencode(tree)
    paths = {b"", *(os.path.join(w, n)[len(base) :] for w, ds, fs in os.walk(base) for n in (*ds, *fs))}
    assert found.keys() == paths
    for path in paths:
        info = os.lstat(base + path)
        entry, content = found[path]
        assert (entry.mode, entry.uid, entry.gid) == (info.st_mode, info.st_uid, info.st_gid)
        assert entry.mtime * 1_000_000_000 + (entry.mtime_ns or 0) == info.st_mtime_ns
        assert entry.rdev == info.st_rdev
        if entry.is_regular:
            with open(base + path, "rb") as file:
                assert content == file.read(), path
        if entry.is_symlink:
            assert entry.symlink == os.readlink(base + path)
    first, second = found[b"/d/suid"][0], found[b"/other name"][0]
    assert first.hardlink_group == second.hardlink_group != 0
    assert first.linkcount == second.linkcount == 2
    assert parse_xattrs(first.xattr) == {b"user.short": b"\0\xff"}
    assert [note for note in conversion.notes if "'user.long' of 300 bytes" in note]


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        (TestLayer(tar_of({"../escape": b""})), LayerFormatError),
        (TestLayer(tar_of({"a": b"x" * 5000})[:-9000]), LayerFormatError),
        (
            TestLayer(tar_of({"a": b""}), media_type=MediaType.DOCKER_FOREIGN_LAYER_GZIP),
            UnsupportedImageError,
        ),
    ],
)
def test_a_bad_layer_leaves_the_repository_as_it_was(
    tmp_path: Path, site: Site, layer: TestLayer, error: type[Exception]
) -> None:
    _convert(site, _image(tmp_path, _TOP))
    before = site.files()
    with pytest.raises(error):
        _convert(site, _image(tmp_path, _BASE, layer))
    assert site.files() == before
    conversion, _ = _convert(site, _image(tmp_path, _BASE))
    assert len(conversion.new) == 1


def test_a_layer_that_lies_leaves_the_repository_as_it_was(tmp_path: Path, site: Site) -> None:
    source = _image(tmp_path, _BASE, _TOP)
    file = source.directory / "blobs/sha256" / _TOP.digest[7:]
    file.write_bytes(file.read_bytes().replace(b"four", b"f0ur"))
    before = site.files()
    with pytest.raises(ContentMismatchError):
        _convert(site, source)
    assert site.files() == before


def test_several_layers_at_once_always_give_the_same_catalogs(tmp_path: Path) -> None:
    layers = [
        TestLayer(
            tar_of({f"{number}/{n}": os.urandom(10) * (300 - 50 * number) for n in range(40 - 6 * number)})
        )
        for number in range(6)
    ]
    source = _image(tmp_path, *layers)
    roots = set()
    for attempt in range(3):
        (tmp_path / str(attempt)).mkdir()
        site = Site(tmp_path / str(attempt))
        _, progress = _convert(site, source)
        assert sorted(progress.finished) == sorted(layer.digest for layer in layers)
        roots.add(site.open().manifest().root)
    assert len(roots) == 1


def test_the_error_that_is_told_is_the_one_that_caused_the_others(tmp_path: Path, site: Site) -> None:
    slow = [TestLayer(tar_of({f"{n}": os.urandom(1 << 20) for n in range(20)})) for _ in range(2)]
    bad = TestLayer(tar_of({"../escape": b""}))
    before = site.files()
    with pytest.raises(LayerFormatError, match="leads out"):
        _convert(site, _image(tmp_path, slow[0], slow[1], bad, _TOP))
    assert site.files() == before


def test_a_thin_image_is_not_made_thin_again(tmp_path: Path, site: Site) -> None:
    with pytest.raises(AlreadyThinError, match="already"):
        _convert(site, _image(tmp_path, TestLayer(tar_of({"thin.json": b"{}"}))))


def test_something_in_the_way_is_not_taken_for_a_layer(tmp_path: Path, site: Site) -> None:
    blocker = TestLayer(tar_of({_BASE.digest[7:]: b"a file of the layer's name"}))
    _convert(site, _image(tmp_path, blocker), DirectoryLayout(b"/x"))
    layout = DirectoryLayout(b"/x/" + blocker.digest[7:].encode())
    with pytest.raises(LayerPlaceError, match="should be a layer's directory"):
        _convert(site, _image(tmp_path, _BASE), layout)


def test_one_publisher_at_a_time(tmp_path: Path, site: Site) -> None:
    with Transaction(site.open()), pytest.raises(BusyError):
        _convert(site, _image(tmp_path, _BASE))


@pytest.mark.parametrize("text", ["", "/", "..", "a/../..", "a\0b"])
def test_layers_need_a_directory(text: str) -> None:
    with pytest.raises(LayerPlaceError):
        DirectoryLayout.parse(text)


@pytest.mark.parametrize("text", ["layers", "layers/", "/layers/", "//layers"])
def test_slashes_around_the_directory_do_not_matter(text: str) -> None:
    assert DirectoryLayout.parse(text) == _LAYOUT


def test_a_description_needs_no_repository(tmp_path: Path) -> None:
    image = load_image(_image(tmp_path, _BASE), None)
    thin = describe(image, FQRN, _LAYOUT)
    assert thin.origin == image.origin
    assert thin.layers[0].location.repository == FQRN


def test_a_device_among_ordinary_files_needs_no_root(tmp_path: Path, site: Site) -> None:
    device = tarfile.TarInfo("null")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    layer = TestLayer(tar_of({"null": device}))
    _convert(site, _image(tmp_path, layer))
    entry, _ = site.tree(b"/layers/" + layer.digest[7:].encode())[b"/null"]
    assert entry.rdev == os.makedev(1, 3)


@pytest.mark.parametrize("layout", [_LAYOUT, UnpackedLayout()])
def test_a_bad_image_leaves_no_trace_in_the_revision_of_the_others(
    tmp_path: Path, site: Site, layout: LayerLayout
) -> None:
    shutil.copytree(site.storage, tmp_path / "new")
    noise = os.urandom(10 << 20)  # enough for workers
    own = TestLayer(tar_of({"own": b"no other image has it", "noise": noise, "etc": None, "etc/c": b"four"}))
    bad = TestLayer(tar_of({"../escape": b""}))
    images = {
        "first": _image(tmp_path, _BASE, _MIDDLE),
        "bad": _image(tmp_path, _BASE, own, _TOP, bad),
        "last": _image(tmp_path, _BASE, _TOP),
    }
    stored = []
    for names in (("first", "last"), ("first", "bad", "last", "bad")):
        shutil.rmtree(site.storage)
        shutil.copytree(tmp_path / "new", site.storage)
        before = site.open().manifest().revision
        made: dict[str, Conversion] = {}
        with Intake(site.open(), layout, Watcher()) as intake:
            for name in names:
                image = load_image(images[name], None)
                if name == "bad":
                    with pytest.raises(LayerFormatError, match="leads out"):
                        intake.add(images[name], image)
                else:
                    made[name] = intake.add(images[name], image)
            assert not intake.broken
            intake.publish()
        assert site.open().manifest().revision == before + 1
        assert [len(made[name].new) for name in ("first", "last")] == [2, 1]
        assert [len(made[name].shared) for name in ("first", "last")] == [0, 1]
        assert {one.revision for one in made.values()} == {before + 1}
        assert site.findings() == []
        stored.append(site.files())
    assert stored[0] == stored[1]
