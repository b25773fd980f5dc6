"""Layers whose entries replace one another: the work grows as the layer does, not with its square."""

import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.layers.apply import apply_layer
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.publisher.errors import IngestError
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.storage_site import Site
from tests.support.tars import Content, tar_of
from tests.support.trees import SAME

pytestmark = pytest.mark.root
Members = Iterator[tuple[str, Content]]


def _beside_many(count: int) -> Members:
    """A directory replaced by a file and back again and again, beside directories that stay."""
    yield from ((f"{number}", None) for number in range(count // 2))
    for _ in range(count // 4):
        yield "x", None
        yield "x", b""


def _filled(count: int) -> Members:
    """A directory that is full whenever a file replaces it."""
    for _ in range(count // 12):
        yield "x", None
        yield from ((f"x/{number}", None) for number in range(10))
        yield "x", b""


def _opaque(count: int) -> Members:
    """A directory that is made opaque again and again."""
    yield from ((f"x/{number}", None) for number in range(count // 2))
    for _ in range(count // 4):
        yield "x", None
        yield "x/.wh..wh..opq", b""


def _deep(count: int) -> Members:
    """Directories far below, each replaced once."""
    for number in range(count // 4):
        yield "d/" * 200 + f"keep-{number}", None
        yield "d/" * 200 + f"{number}", None
        yield "d/" * 200 + f"{number}/inside", None
        yield "d/" * 200 + f"{number}", b""


def _applied(tar: bytes, place: Path) -> None:
    apply_layer(io.BytesIO(tar), place, SAME)


def _ingested(tar: bytes, place: Path) -> None:
    with Transaction(Site(place).open()) as transaction:
        transaction.ingest(b"/layer", tree_entries(LayerStream("layer", io.BytesIO(tar)), []))


def _steps(action: Callable[[], None]) -> int:
    """The bytecode instructions that an action executes in the modules which place entries."""
    steps = 0

    def count(_: FrameType, event: str, __: Any) -> Any:
        nonlocal steps
        steps += event == "opcode"
        return count

    def enter(frame: FrameType, _: str, __: Any) -> Any:
        if not any(room in frame.f_code.co_filename for room in ("/layers/", "/ingest/", "/catalog/")):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return count

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        action()
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize("unpack", [_applied, _ingested])
@pytest.mark.parametrize("members", [_beside_many, _filled, _opaque, _deep])
def test_four_times_the_entries_are_four_times_the_work(
    tmp_path: Path, members: Callable[[int], Members], unpack: Callable[[bytes, Path], None]
) -> None:
    work = []
    for count in (120, 480):
        with tempfile.TemporaryDirectory(dir=tmp_path) as place:
            tar = tar_of(*members(count))
            work.append(_steps(lambda tar=tar, place=place: unpack(tar, Path(place))))  # type: ignore[misc]
    assert work[0] > 5_000
    assert work[1] < 4.5 * work[0]


def test_ways_through_links_have_a_limit(tmp_path: Path) -> None:
    detour = "./" * 2000 + "d"
    links = {"d": None, **{f"d/l{number}": "/" + detour for number in range(3)}}
    tar = tar_of(links, ("d/l0/l1/l2/file", b""))
    with pytest.raises(IngestError, match="too many steps through symbolic links"):
        _ingested(tar, tmp_path)
