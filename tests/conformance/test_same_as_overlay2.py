"""Whatever is done to a layer, what can be asked of it is what stock overlay2 answers.

Each script runs on overlay2, and on our driver below Docker and by the protocol. Compared are what the
script saw, the changes, the size, the layer's tar stream with its order, and the tree of the committed
layer.
"""

import pytest

from tests.support.layer_life import Life, Outcome

pytestmark = [pytest.mark.root, pytest.mark.docker]

LIVES = {
    "made": ("cd /t; echo 1 > new; mkdir -p e/f; mkfifo e/pipe; ln -s nowhere e/s; mknod e/c c 1 3",),
    "changed": ("cd /t; echo more >> f; echo 1 > d/sub/deep; chmod 1777 d; chown 1:2 d/one; touch linked",),
    "deleted": ("cd /t; rm f symlink d/one; rm -r d/sub", "cd /t; rm -r d linked; echo back > f; ls"),
    "deleted-and-made-again": ("cd /t; rm f; echo other > f; rm -r d/sub; mkdir d/sub", "cd /t; rm f d/two"),
    "opaque": ("cd /t; rm -r d; mkdir d; echo only > d/only", "cd /t; rm d/only; touch d/one; rm -r d"),
    "opaque-below": (
        "cd /t; rm -r d/sub; mkdir d/sub", "cd /t; touch d/sub/deeper; find d | sort", "rm -r /t/d/sub",
    ),
    "kinds": ("cd /t; rm f; mkdir f; touch f/in; rm -r d; echo file > d; rm symlink; mkdir symlink",),
    "renamed-files": ("cd /t; mv f g; mv d/one one; mv able d/able; mv suid suid2; stat -c %f d/able suid2",),
    "renamed-directories": (
        "cd /t; mv d e; echo 4 > e/sub/four; mv e/sub sub", "cd /t; mv e d; mv sub d/sub",
    ),
    "renamed-over": (
        "cd /t; mkdir new; rm -r d/sub; mv new d/sub; mv d/one f; mkdir x; mv x y", "rm -r /t/y",
    ),
    "metadata-only": ("cd /t; chmod 600 big; chown 5:6 suid; chmod 700 d/sub; chown 7 able",),
    "hard-links": (
        "cd /t; ln f f2; echo x > new; ln new d/new; echo more >> link; stat -c '%h %s' link linked f f2",
        "cd /t; rm f; echo y >> d/new; ln d/new third; stat -c %h new d/new third f2",
    ),
    "odd-names": (
        "cd /t; mkdir 'with space'; echo x > 'with space/ü'; touch -- -dash 'a:b' 'back\\slash'; rm d/one",
        "cd /t; rm -r 'with space'; rm -- -dash; mv a:b 'c,d'",
    ),
    "nothing": ("true", "cd /t; touch passing; rm passing", "cat /t/d/sub/deep"),
}  # fmt: skip


@pytest.fixture(scope="module")
def expectations(overlay2: Life) -> dict[str, list[Outcome]]:
    """What overlay2 answers."""
    return {name: overlay2.lead(name, *scripts) for name, scripts in LIVES.items()}


@pytest.mark.parametrize("name", LIVES)
def test_a_life(name: str, expectations: dict[str, list[Outcome]], life: Life) -> None:
    expected = expectations[name]
    found = life.lead(name, *LIVES[name])
    for theirs, mine in zip(expected, found, strict=True):
        assert mine.said == theirs.said
        assert mine.changes == theirs.changes
        assert mine.layer == theirs.layer
        assert mine.seen == theirs.seen
        assert mine.size == theirs.size
