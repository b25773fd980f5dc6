"""Whatever containerd, or an index of chains, says to the snapshotter: refused or a miss, never a wrong tree.

Everything goes through the real socket, to a real process that has mounted a real repository.
"""

import os
import random
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from cvmfs_graphdriver.oci.image.chain import record_directory, unpacked_directory
from cvmfs_graphdriver.snapshotter.metadata import Metadata
from cvmfs_graphdriver.snapshotter.snapshot import BELOW_LABEL, CHAIN_LABEL, LAYER_LABEL
from tests.support.chains import Image, digest_of
from tests.support.entries import Item, file, symlink
from tests.support.mutations import INPUTS, SEED
from tests.support.published import FQRN, Published, published
from tests.support.snapshotter_process import MountSpec, SnapshotterProcess, code_of, snapshotter

pytestmark = pytest.mark.root

GOOD = Image("good", 0, 1)
_LAYER = os.fsdecode(unpacked_directory(GOOD.layers[0]))
_NAME = GOOD.layers[0].hex


class BadRecord(NamedTuple):
    """The links of a record, and the reason for which nothing is found by it."""

    layer: str
    diff: str | None
    reason: str


def own(number: int) -> str:
    """The diffID that fits the chain of the record with this number."""
    return str(digest_of(f"bad {number}"))


BAD = [
    BadRecord(target, None, "malformed")
    for target in (
        "../../../etc",
        "/etc",
        f"/cvmfs/other.example.org{_LAYER}",
        f"../../../../other.example.org{_LAYER}",
        f"../../..{_LAYER}/../../../..",
        f"../../../.layers/../{_LAYER}",
        f"../../../.cvmfs-data/fail/{_NAME}",
        f"../../../.chains/{_NAME[:2]}/{_NAME}",
        ".",
        "layer",
        f"../../../{'a/' * 600}{_NAME}",
        "../../..",
    )
] + [
    BadRecord(f"../../..{_LAYER}", str(GOOD.diff_ids[0]), "wrong-chain"),
    BadRecord(f"../../..{_LAYER}", "sha512:" + "0" * 128, "malformed"),
    BadRecord(f"../../..{_LAYER}", "nonsense", "malformed"),
    BadRecord(f"../../..{_LAYER}", "sha256:" + "\N{ARABIC-INDIC DIGIT ONE}" * 64, "malformed"),
    BadRecord(f"../../../nowhere/{_NAME}", None, "no-layer"),
    BadRecord(f"../../../link/{_NAME}", None, "no-layer"),
    BadRecord(f"../../../file/{_NAME}", None, "no-layer"),
    BadRecord(f"../../../circle/{_NAME}", None, "no-layer"),
]


def record_of(number: int) -> list[Item]:
    bad = BAD[number]
    diff = own(number) if bad.diff is None else bad.diff
    return [symlink("/layer", bad.layer.encode()), symlink("/diff", diff.encode())]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    with published(tmp_path_factory.mktemp("repository")) as found:
        trees: dict[bytes, Sequence[Item]] = {
            record_directory(digest_of(f"bad {number}")): record_of(number) for number in range(len(BAD))
        }
        found.publish(
            GOOD.trees([[file("/base", b"base")], [file("/top", b"top")]])
            | GOOD.records([0, 1])
            | trees
            | {
                b"/link": [symlink(f"/{_NAME}", _LAYER.encode())],
                b"/file": [file(f"/{_NAME}", b"not a directory")],
                b"/circle": [symlink(f"/{_NAME}", _NAME.encode())],
            }
        )
        yield found


@pytest.fixture
def running(repository: Published, tmp_path: Path) -> Iterator[SnapshotterProcess]:
    with snapshotter(tmp_path, [FQRN], repository.etc) as found:
        yield found
        assert found.process.poll() is None
        assert "unexpectedly" not in found.log.read_text()


def missed(running: SnapshotterProcess, key: str, parent: str, labels: Mapping[str, str]) -> str:
    """Prepare something that must not be found: it is an empty directory; returns why it is not lazy."""
    mounts = running.prepare(key, parent, labels)
    if not parent:
        with running.mounted(mounts) as target:
            assert os.listdir(target) == []
    with closing(Metadata(running.state / "metadata.db", reading=True)) as metadata:
        return metadata.get(key).why_not


def lazy(running: SnapshotterProcess, key: str, parent: str, labels: Mapping[str, str]) -> str:
    with code_of("ALREADY_EXISTS"):
        running.prepare(key, parent, labels)
    return key


def test_records_that_lead_elsewhere_are_misses(running: SnapshotterProcess) -> None:
    for number, bad in enumerate(BAD):
        labels = {CHAIN_LABEL: str(digest_of(f"bad {number}"))}
        assert missed(running, f"bad/{number}", "", labels).startswith(f"{bad.reason}: "), bad
    lazy(running, "good", "", GOOD.labels(0))


def test_a_record_counts_only_above_the_chain_that_it_fits(running: SnapshotterProcess) -> None:
    base = lazy(running, "base", "", GOOD.labels(0))
    assert missed(running, "1", "", GOOD.labels(1)).startswith("wrong-chain: ")
    assert missed(running, "2", base, GOOD.labels(0)).startswith("wrong-chain: "), "upon itself"
    running.prepare("work", base)
    running.commit("changed", "work")
    assert missed(running, "3", "changed", GOOD.labels(1)).startswith("no-key: ")
    lies = {**GOOD.labels(1), BELOW_LABEL: str(digest_of("another"))}
    assert missed(running, "4", "changed", lies).startswith("wrong-chain: ")
    top = lazy(running, "top", base, GOOD.labels(1))
    with running.mounted(running.view("view", top)) as target:
        assert sorted(os.listdir(target)) == ["base", "top"]


MALFORMED = (
    "",
    "sha256:",
    "sha256:" + "0" * 63,
    "sha256:" + "../" * 21 + "x",
    "sha256:" + "A" * 64,
    "md5:" + "0" * 32,
    f"{GOOD.chains[0]} ",
    f"../{GOOD.chains[0]}",
    f"{GOOD.chains[0]}\0",
    "\N{ARABIC-INDIC DIGIT ONE}" * 64,
    "x" * 4000,
)


def test_malformed_digests_are_misses(running: SnapshotterProcess) -> None:
    unknown = {CHAIN_LABEL: str(digest_of("unknown"))}
    for number, text in enumerate(MALFORMED):
        both = {CHAIN_LABEL: text, LAYER_LABEL: text}
        if text:
            assert missed(running, f"{number} chain", "", both).startswith("malformed: ")
        assert missed(running, f"{number} layer", "", unknown | {LAYER_LABEL: text}).startswith("no-record: ")
        assert running.prepare(f"{number} plain", "", {LAYER_LABEL: text})[0].type == "bind"
        # With a right chain, the layer's digest does not matter.
        lazy(running, f"{number} good", "", {**GOOD.labels(0), LAYER_LABEL: text})


def test_long_labels_and_keys(running: SnapshotterProcess) -> None:
    longest = {"name": "v" * 4092}
    running.prepare("longest", "", longest)
    assert dict(running.stat("longest").labels) == longest
    for labels in (
        {"name": "v" * 4093},
        {"n" * 4097: ""},
        {CHAIN_LABEL: "v" * 4096},
        {"x": "\N{EURO SIGN}" * 1366},
    ):
        with code_of("INVALID_ARGUMENT"):
            running.prepare("too long", "", labels)
        with code_of("INVALID_ARGUMENT"):
            running.update("longest", labels)
    for key in ("", "k" * 4097):
        with code_of("INVALID_ARGUMENT"):
            running.prepare(key)
    with pytest.raises(grpc.RpcError):
        running.prepare("many", "", {f"label {number}": "v" * 4000 for number in range(1100)})
    assert [info.name for info in running.infos()] == ["longest"]


def test_unknown_parents_and_circles(running: SnapshotterProcess) -> None:
    for labels in ({}, GOOD.labels(1)):
        with code_of("NOT_FOUND"):
            running.prepare("orphan", "no such parent", labels)
        with code_of("NOT_FOUND"):
            running.prepare("itself", "itself", labels)
    running.prepare("active")
    with code_of("INVALID_ARGUMENT"):
        running.prepare("above", "active", GOOD.labels(1))
    assert [info.name for info in running.infos()] == ["active"]


def test_names_lead_nowhere(running: SnapshotterProcess, tmp_path: Path) -> None:
    outside = sorted(os.listdir(tmp_path))
    for number, key in enumerate(
        (
            "../../../../tmp/x",
            "/etc/passwd",
            "..",
            ".",
            "a/../../b",
            "\0",
            "\n",
            "\x1b[2J",
            "l/0",
            "1",
            "' --",
        )
    ):
        with running.mounted(running.prepare(key)) as target:
            (target / "file").write_bytes(b"content")
        name = f"{key}/committed"
        running.commit(name, key)
        with running.mounted(running.view(f"{key}/view", name)) as view:
            assert os.listdir(view) == ["file"]
        assert len(running.directories()) == 2 * (number + 1)
        assert all(directory.isdigit() for directory in running.directories())
    assert sorted(os.listdir(tmp_path)) == outside
    for info in reversed(running.infos()):
        running.remove(info.name)
    running.cleanup()
    assert running.directories() == []


def test_mapped_ids_are_only_numbers(repository: Published, tmp_path: Path) -> None:
    user, group = (f"containerd.io/snapshot/{name}mapping" for name in ("uid", "gid"))
    good = {user: "0:1000:1", group: "0:1000:1"}
    with snapshotter(tmp_path, [FQRN], repository.etc, more="remap_ids = true") as running:
        for text in (
            "",
            "0",
            "0:0",
            "a:b:c",
            "0:0:1,",
            "-1:0:1",
            "1:0:1",
            "0:99999999999:1",
            "0:1:1,upperdir=/",
        ):
            with code_of("INVALID_ARGUMENT"):
                running.prepare("key", "", {user: text, group: "0:0:1"})
        running.prepare("good", "", good)
        running.update("good", {**good, user: "0:0:1,lowerdir=/etc"})
        with code_of("INVALID_ARGUMENT"):
            running.mounts("good")


def test_what_is_not_grpc_harms_nobody(running: SnapshotterProcess) -> None:
    chance = random.Random(SEED)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    silent = []
    for number in range(50):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(running.socket))
        client.sendall(preface * (number % 2) + chance.randbytes(chance.randrange(2000)))
        silent.append(client)
    running.prepare("meanwhile")
    for client in silent:
        client.close()
    assert [info.name for info in running.infos()] == ["meanwhile"]


@pytest.mark.fuzz
def test_random_requests(running: SnapshotterProcess) -> None:
    """In any order and with any content: a right answer or a refusal, and nothing remains in the end."""
    chance = random.Random(SEED)
    codes = Counter(request(running, chance) for _ in range(INPUTS // 4))
    assert codes["OK"] > INPUTS // 20, codes
    refused = {"NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "INVALID_ARGUMENT"}
    assert set(codes) == {"OK", *refused}, codes
    for info in reversed(running.infos()):
        running.remove(info.name)
    running.cleanup()
    assert (running.infos(), running.directories(), running.standing()) == ([], [], [])


def request(running: SnapshotterProcess, chance: random.Random) -> str:
    """Send a random request; returns the status of the answer."""
    key, parent = (chance.choice(KEYS) for _ in range(2))
    labels = dict(chance.choice(LABELS) for _ in range(chance.choice((0, 0, 1, 2))))
    if chance.random() < 0.5:
        labels |= GOOD.labels(chance.randrange(2), layer=chance.random() < 0.5)
    calls = {
        "prepare": lambda: right(running, running.prepare(key, chance.choice(("", parent)), labels), chance),
        "view": lambda: right(running, running.view(key, chance.choice(("", parent)), labels), chance),
        "mounts": lambda: running.mounts(key),
        "commit": lambda: running.commit(parent, key, labels),
        "remove": lambda: running.remove(key),
        "stat": lambda: running.stat(key),
        "update": lambda: running.update(
            key, labels, *chance.choices(("labels", "labels.a", "kind", ""), k=2)
        ),
        "list": lambda: running.infos(*chance.choices(FILTERS, k=chance.randrange(3))),
        "usage": lambda: running.call("Usage", key=key),
        "cleanup": running.cleanup,
    }
    try:
        calls[chance.choice((*calls, "prepare", "prepare", "commit", "commit"))]()
    except grpc.RpcError as error:
        code: str = error.code().name
        return code
    return "OK"


def right(running: SnapshotterProcess, mounts: Sequence[MountSpec], chance: random.Random) -> None:
    """What is mounted now and then holds nothing but the files of the repository."""
    if chance.random() < 0.1:
        with running.mounted(mounts) as target:
            found = {name: (target / name).read_bytes() for name in os.listdir(target)}
        assert found in ({}, {"base": b"base"}, {"base": b"base", "top": b"top"}, {"top": b"top"})


KEYS = ["", "a", "b", "c/../d", "/e", "\0", "x" * 4096, "y" * 4097, str(GOOD.chains[0]), str(GOOD.chains[1])]
LABELS = [
    ("a", "b"),
    ("", ""),
    ("n" * 5000, ""),
    (CHAIN_LABEL, "sha256:"),
    (CHAIN_LABEL, str(digest_of("bad 0"))),
    (BELOW_LABEL, str(GOOD.chains[1])),
    ("containerd.io/snapshot/uidmapping", "0:0:1"),
    ("containerd.io/snapshot/gidmapping", "1:1:0"),
]
FILTERS = [
    "",
    "name==a",
    'labels."a"',
    'parent~=".*"',
    "kind==committed,name!=b",
    "==",
    "(" * 1000,
    "\0",
    'a."',
]
