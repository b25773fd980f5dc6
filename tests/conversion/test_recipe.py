import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.conversion.errors import RecipeError
from cvmfs_graphdriver.conversion.recipe import Recipe, RecipeInput
from cvmfs_graphdriver.oci.image.reference import ImageReference
from tests.support.mutations import generated

_RECIPE = """\
version: 1
user: ada
cvmfs_repo: 'images.example.org'
output_format: '$(scheme)://registry.example.org/thin/$(image)'
input:
    - 'https://registry.hub.docker.com/library/fedora:latest'
    # more to come
    - 'https://r.org/group/app:1.*'
"""


def _parse(text: str) -> Recipe:
    return Recipe.parse("r.yaml", text.encode())


def test_a_recipe_is_read() -> None:
    recipe = _parse(_RECIPE)
    assert (recipe.user, recipe.repository) == ("ada", "images.example.org")
    first, second = recipe.inputs
    assert (first.place, str(first.reference), first.pattern) == (
        "r.yaml:6",
        "docker.io/library/fedora:latest",
        "",
    )
    assert (second.place, second.reference.name, second.pattern) == ("r.yaml:8", "r.org/group/app", "1.*")


def test_tags_are_matched_as_a_shell_would() -> None:
    tags = ["1", "1.0", "1.1-rc", "2.1.0", "latest"]

    def matching(pattern: str) -> list[str]:
        line = RecipeInput.parse("x:1", f"https://r.org/a:{pattern}")
        return [reference.tag for reference in line.expand(tags)]

    assert matching("*") == tags
    assert matching("1.*") == ["1.0", "1.1-rc"]
    assert matching("?") == ["1"]
    assert matching("[12]*.?") == ["1.0", "2.1.0"]


@pytest.mark.parametrize(
    ("form", "output"),
    [
        (None, "r.org/g/app_thin:1"),
        ("$(scheme)://$(registry)/$(repository):$(tag)-thin", "r.org/g/app:1-thin"),
        ("https://o.org/sync/$(image)", "o.org/sync/g/app:1"),
        ("https://o.org/x$(reference)", "o.org/x:1"),
        ("o.org/x:$(tag)", "o.org/x:1"),
    ],
)
def test_thin_images_are_named_by_the_format(form: str | None, output: str) -> None:
    line = "" if form is None else f"output_format: '{form}'\n"
    recipe = _parse(f"version: 1\ncvmfs_repo: r\n{line}input: ['https://r.org/g/app:1']\n")
    assert str(recipe.output(recipe.inputs[0], recipe.inputs[0].reference)) == output


def test_a_name_by_digest_cannot_be_pushed() -> None:
    recipe = _parse(
        "version: 1\ncvmfs_repo: r\ninput: ['https://r.org/a:1']\noutput_format: 'o.org/$(image)'\n"
    )
    image = ImageReference.parse(f"r.org/a@sha256:{'a' * 64}")
    with pytest.raises(RecipeError, match="needs a tag"):
        recipe.output(recipe.inputs[0], image)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "r.yaml:1: a recipe must be a mapping"),
        ("- a\n", "r.yaml:1: a recipe must be a mapping"),
        ("version: 1\n  input: [\n", "r.yaml:2: this is not YAML"),
        ("version: 1\ncvmfs_repo: r\ninput: [\n", "r.yaml:4: this is not YAML"),
        ("version: 1\nversion: 1\n", "r.yaml:2: this is not YAML"),
        ("a: &a [*a]\n", "r.yaml:1: the key 'a' is unknown"),
        ("version: 1\nimput: []\n", "r.yaml:2: the key 'imput' is unknown"),
        ("\nversion: 2\n", "r.yaml:2: only recipes of version 1 are"),
        ("cvmfs_repo: r\n", "r.yaml:1: the key 'version' is missing"),
        ("version: 1\ninput: []\n", "r.yaml:1: the key 'cvmfs_repo' is missing"),
        ("version: 1\ncvmfs_repo: [r]\ninput: []\n", "r.yaml:2: 'cvmfs_repo' is not a string"),
        ("version: 1\ncvmfs_repo: ''\ninput: []\n", "r.yaml:2: 'cvmfs_repo' is not a string"),
        ("version: 1\ncvmfs_repo: r\ninput: 'x'\n", "r.yaml:3: 'input' is not a list"),
        ("version: 1\ncvmfs_repo: r\ninput:\n - 5\n", "r.yaml:4: 5 is not a string"),
        (
            "version: 1\ncvmfs_repo: r\ninput:\n - 'fedora'\n",
            "r.yaml:4: 'fedora' does not begin with https://",
        ),
        (
            "version: 1\ncvmfs_repo: r\ninput:\n - 'https://A/B'\n",
            "r.yaml:4: 'A/B' is not a valid image name",
        ),
        (
            "version: 1\ncvmfs_repo: r\ninput: ['https://r.org/a:1']\noutput_format: 'https://x y'\n",
            "r.yaml:4: output_format turns r.org/a:1 into 'https://x y'",
        ),
    ],
)
def test_every_complaint_names_file_and_line(text: str, complaint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _parse(text)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(RecipeError, match="r.yaml:2: this is not UTF-8"):
        Recipe.parse("r.yaml", b"version: 1\nuser: '\xff'\n")


def test_a_recipe_runs_nothing() -> None:
    with pytest.raises(RecipeError):
        _parse("version: !!python/object/apply:os.system ['true']\n")


@generated
@given(st.text(alphabet="version:1 input\n-[]{}&*!'\"#%@|>?\t", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(RecipeError):
        _parse(text)


def test_thin_images_can_be_left_out() -> None:
    plain = "version: 1\ncvmfs_repo: r.org\ninput: ['https://r.org/a:1']\n"
    assert _parse(plain).thin_images
    assert not _parse(plain + "thin_images: false\n").thin_images
    for wrong, line in (("thin_images: 'no'", 4), ("thin_images: false\noutput_format: x", 5)):
        with pytest.raises(RecipeError, match=f"^r.yaml:{line}: "):
            _parse(plain + wrong + "\n")
