"""The manifests for Kubernetes: valid for its published schemas, and in step with the program they run."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from cvmfs_graphdriver.cli.main import command
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from tests.support.project import PROJECT
from tests.support.snapshotter_image import VERSION

MANIFESTS = PROJECT / "deploy/kubernetes"
RELEASES = ("1.30", "1.33", "1.37")
"""The oldest with appArmorProfile, which earlier ones ignore, to the newest."""


def objects(path: Path) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(path.read_text()))


def daemon_sets() -> list[dict[str, Any]]:
    return [
        each for path in MANIFESTS.glob("*.yaml") for each in objects(path) if each["kind"] == "DaemonSet"
    ]


def containers() -> list[dict[str, Any]]:
    pods = [each["spec"]["template"]["spec"] for each in daemon_sets()]
    return [container for pod in pods for container in [*pod["initContainers"], *pod["containers"]]]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ["install.yaml", "uninstall.yaml", "runtime-class.yaml"])
def test_the_schemas_of_kubernetes_allow_it(name: str, release: str) -> None:
    found = objects(MANIFESTS / name)
    assert found
    for each in found:
        kubernetes_validate.validate(each, release, strict=True)


def test_a_mistake_would_be_found() -> None:
    (wrong, *_) = daemon_sets()
    wrong["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


def test_the_program_knows_the_commands() -> None:
    for container in containers():
        done = CliRunner().invoke(command, [*container["args"], "--help"])
        assert done.exit_code == 0, done.output
        assert done.output.startswith(f"Usage: command snapshotter {container['args'][1]} ")


def test_the_image_has_this_version() -> None:
    assert {each["image"].rpartition(":")[2] for each in containers()} == {VERSION}


def test_no_more_rights_than_needed() -> None:
    assert len(daemon_sets()) == 2
    for daemon_set in daemon_sets():
        pod = daemon_set["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert not pod.keys() & {"hostPID", "hostNetwork", "hostIPC"}
        for container in [*pod["initContainers"], *pod["containers"]]:
            context = container["securityContext"]
            assert context["capabilities"]["drop"] == ["ALL"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert "privileged" not in context
            assert "limits" not in container.get("resources", {})
        for container in pod["containers"]:
            assert not container.get("volumeMounts")
            assert container["securityContext"]["runAsNonRoot"] is True
            assert "add" not in container["securityContext"]["capabilities"]
    capabilities = {
        name for each in containers() for name in each["securityContext"]["capabilities"].get("add", ())
    }
    kinds = {each["kind"] for path in MANIFESTS.glob("*install.yaml") for each in objects(path)}
    assert capabilities == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SYS_CHROOT"}
    assert kinds == {"Namespace", "ServiceAccount", "ConfigMap", "DaemonSet"}


def test_the_example_of_a_configuration_is_valid() -> None:
    (given,) = [each["data"] for each in objects(MANIFESTS / "install.yaml") if each["kind"] == "ConfigMap"]
    assert SnapshotterConfiguration.parse(given["config.toml"], "config.toml").repositories
    (pod,) = [each for each in daemon_sets() if each["metadata"]["name"] == "cvmfs-snapshotter"]
    volumes = pod["spec"]["template"]["spec"]["volumes"]
    (items,) = [each["configMap"]["items"] for each in volumes if "configMap" in each]
    assert {each["key"] for each in items} == given.keys()
