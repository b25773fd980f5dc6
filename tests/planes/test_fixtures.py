"""Repositories of a real CernVM-FS server, mounted, are what the real client saw in them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures import serve, unpack
from tests.support.mounts import comparable, listing, mounted
from tests.support.project import FIXTURES

pytestmark = pytest.mark.root

NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/fqrn")) or ["none"]


def expected(name: str, tag: str = "") -> dict[str, Any]:
    """What the real client saw."""
    found: dict[str, Any] = json.loads((FIXTURES / name / f"expected{tag}.json").read_text())
    return found


# The listings were made from a cache without a limit, and mounted so that setuid bits count.
UNLIMITED = {"CVMFS_QUOTA_LIMIT": "-1"}


@pytest.mark.parametrize("name", NAMES)
def test_mount_equals_the_reference_client(name: str, tmp_path: Path) -> None:
    repository = unpack(name, tmp_path / "repository")
    with (
        serve(repository.directory) as server,
        mounted(repository, server, tmp_path, suid=True, parameters=UNLIMITED) as target,
    ):
        found, wanted = listing(target), expected(name)
        ours, theirs = comparable(found), comparable(wanted)
        assert set(ours) == set(theirs)
        for place, description in theirs.items():
            assert ours[place] == description, place
        assert found["root_listxattr"] == wanted["root_listxattr"]
        port = server.url.rpartition(":")[2]
        ours, theirs = magic(found, port), magic(wanted, "18090")
        for place, attributes in theirs.items():
            assert ours[place] == attributes, place


def magic(listed: dict[str, Any], port: str) -> dict[Any, Any]:
    """The magic attributes in a listing; those that name a version or an address by their form."""
    places: dict[Any, Any] = {"root": listed["root_magic_xattrs"]}
    for kind in ("entries", "hidden_entries"):
        for entry in listed.get(kind, ()):
            places[kind, entry["path"] or entry.get("path_hex")] = entry.get("magic", {})
    for attributes in places.values():
        for name, value in attributes.items():
            if name == "user.version":
                value["text"] = re.sub(r"\d+", "N", value["text"])
            elif name == "user.external_url" and "text" in value:
                value["text"] = value["text"].replace(port, "PORT")
    return places


@pytest.mark.parametrize(
    ("name", "tag"), [("kitchen-sha1", tag) for tag in ("base", "v1", "v2")] + [("gc", "keep")]
)
def test_tags_equal_the_reference_client(name: str, tag: str, tmp_path: Path) -> None:
    repository = unpack(name, tmp_path / "repository")
    parameters = {**UNLIMITED, "CVMFS_REPOSITORY_TAG": tag}
    with (
        serve(repository.directory) as server,
        mounted(repository, server, tmp_path, suid=True, parameters=parameters) as target,
    ):
        assert comparable(listing(target)) == comparable(expected(name, f"-{tag}"))
