"""The errors in the code and the table in docs/errors.md are the same."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import cvmfs_graphdriver
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from tests.support.project import PROJECT

_TABLE = PROJECT / "docs/errors.md"
_RANGES = {
    "repository": range(10, 20),
    "client": range(20, 30),
    "oci": range(30, 40),
    "publisher": range(40, 50),
    "kernel": range(50, 60),
    "planes": range(50, 60),
    "conversion": range(60, 70),
    "layers": range(70, 80),
    "graphdriver": range(70, 80),
    "shell": range(80, 90),
    "snapshotter": range(90, 100),
}

ErrorClass = type[CvmfsGraphdriverError]


def _all_errors() -> list[ErrorClass]:
    for module in pkgutil.walk_packages(cvmfs_graphdriver.__path__, "cvmfs_graphdriver."):
        importlib.import_module(module.name)

    def below(error: ErrorClass) -> Iterator[ErrorClass]:
        yield error
        for child in error.__subclasses__():
            yield from below(child)

    return sorted(set(below(CvmfsGraphdriverError)), key=lambda error: error.__name__)


def _own_code(error: ErrorClass) -> int | None:
    return vars(error).get("exit_code")


@pytest.fixture(scope="module")
def errors() -> list[ErrorClass]:
    return _all_errors()


def test_every_error_has_a_code_of_its_own(errors: list[ErrorClass]) -> None:
    owners: dict[int, str] = {}
    for error in errors:
        code = _own_code(error)
        if code is None:
            assert error.__subclasses__(), f"{error.__name__} can be raised and has no exit code of its own"
            continue
        assert code not in owners, f"{error.__name__} and {owners.get(code)} share the exit code {code}"
        owners[code] = error.__name__


def test_every_code_is_in_its_rooms_range(errors: list[ErrorClass]) -> None:
    for error in errors:
        code = _own_code(error)
        if error is CvmfsGraphdriverError or code is None:
            continue
        room = error.__module__.split(".")[1]
        assert code in _RANGES[room], f"{error.__name__} of {room} has the exit code {code}"


def test_every_error_is_where_its_name_says(errors: list[ErrorClass]) -> None:
    for error in errors:
        assert error.__name__.endswith("Error")
        assert error.__module__.rpartition(".")[2] == "errors"
        assert error.__doc__, f"{error.__name__} does not say when it is raised"


def test_the_table_and_the_code_agree(errors: list[ErrorClass]) -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \| .+ \| .+ \|$", _TABLE.read_text(), re.MULTILINE)
    documented = {name: int(code) for code, name in rows}
    assert len(documented) == len(rows)
    assert documented == {error.__name__: code for error in errors if (code := _own_code(error)) is not None}
