"""A container's layer that one node commits and another runs, without either registry or node holding it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.daemons import DockerEngine
from demo.installation import Installation
from demo.seaweed import KEY, SECRET, Seaweed
from demo.stage import FQRN
from tests.end_to_end.conftest import Scene
from tests.support.engines import Plugins

pytestmark = [pytest.mark.root, pytest.mark.docker]


@pytest.fixture(scope="module")
def publisher(scene: Scene, s3: Seaweed) -> Iterator[str]:
    """The service as an administrator runs it; gives its URL."""
    command = [
        *(sys.executable, "-c", "from cvmfs_graphdriver.cli.main import main; main()"),
        *("publisher", "serve", FQRN, "--port", "0", "--interval", "0.5"),
        *("--storage", str(scene.stage.storage), "--keys", str(scene.stage.keys)),
        *("--uploads", str(s3.configuration("layers"))),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def committer(
    scene: Scene, s3: Seaweed, publisher: str, plugins: Plugins, installation: Installation
) -> Iterator[DockerEngine]:
    """A node whose plugin has been told of the publisher."""
    config = scene.stage.scratch / "minio"
    config.mkdir()
    values = {
        "AccessKey": KEY,
        "AccessSecret": SECRET,
        "Host": s3.host,
        "SSL": False,
        "CvmfsRepo": FQRN,
        "PublishStatusURL": f"{publisher}/status",
    }
    (config / "config.json").write_text(json.dumps(values))
    settings = [f"minio_ext_config.source={config}"]
    with plugins.engine(
        scene.stage.scratch, "committer", scene.stage.etc, installation=installation, settings=settings
    ) as engine:
        yield engine


def layers_of(engine: DockerEngine, image: str) -> list[str]:
    layers: list[str] = json.loads(engine.docker("inspect", "--format", "{{json .RootFS.Layers}}", image))
    return layers


def test_what_one_node_commits_another_runs(
    scene: Scene, committer: DockerEngine, ours: DockerEngine, s3: Seaweed
) -> None:
    assert f"Commit Through S3: to {FQRN} by {s3.host}" in committer.docker("info")
    script = "echo changed > /etc/motd; rm /app/main.py; head -c 3000000 /dev/urandom > /big; sha256sum /big"
    name = committer.docker("create", "--network", "none", scene.thin, "sh", "-c", script)
    big = committer.docker("start", "--attach", name)
    image = f"{scene.stage.registry}/demo:committed"
    committer.docker("commit", name, image)
    committer.docker("rm", name)
    assert len(layers_of(committer, image)) == len(layers_of(committer, scene.thin)) + 1
    size = int(committer.docker("inspect", "--format", "{{.Size}}", image))
    assert size < 100_000  # Docker holds descriptors only
    committer.docker("push", "--quiet", image)
    assert list(s3.bucket("layers").objects("")) == []  # published, and not kept twice
    check = "cat /etc/motd; test ! -e /app/main.py; sha256sum /big"
    ours.docker("pull", "--quiet", image)
    for engine in (committer, ours):
        assert engine.run(image, "sh", "-euc", check).decode() == f"changed\n{big}\n"
    # The image's own description names everything from the base to the new layer.
    found = [json.loads(path.read_text()) for path in ours.plugin_home().glob("*/*/thin.json")]
    stacks = [[layer["url"] for layer in each["layers"]] for each in found]
    assert any(stack[:-1] in stacks for stack in stacks)


def test_building_upon_thin_images(
    scene: Scene, committer: DockerEngine, ours: DockerEngine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("copied\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {scene.thin}\nCOPY file /file\nRUN echo ran > /ran\nENV A=b\n"
    )
    image = f"{scene.stage.registry}/demo:built"
    committer.docker("build", "--quiet", "--network", "none", "--tag", image, str(tmp_path))
    assert int(committer.docker("inspect", "--format", "{{.Size}}", image)) < 100_000
    committer.docker("push", "--quiet", image)
    assert ours.run(image, "cat", "/file", "/ran") == b"copied\nran\n"


def test_a_publisher_that_is_down_stops_no_commit(
    scene: Scene, committer: DockerEngine, ours: DockerEngine, s3: Seaweed
) -> None:
    s3.kill()
    try:
        name = committer.docker(
            "create", "--network", "none", scene.thin, "sh", "-c", "echo normal > /normal"
        )
        committer.docker("start", "--attach", name)
        image = f"{scene.stage.registry}/demo:fallen-back"
        committer.docker("commit", name, image)
        committer.docker("push", "--quiet", image)
        assert "degraded: the last layer could not be published: " in committer.docker("info")
    finally:
        s3.start()
    assert ours.run(image, "cat", "/normal") == b"normal\n"
    assert "Commit Through S3: off" in ours.docker("info")
