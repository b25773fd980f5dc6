"""Where configuration comes from: the files in /etc/cvmfs in order, each value with its file and line.

Owns: the search order, the configuration repository's place in it, and templates (CernVM-FS format
reference, section 7.1). Must not know: how a file is evaluated (``shell``), what a parameter means.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cvmfs_graphdriver.client.configuration.parameters import PARAMETERS
from cvmfs_graphdriver.client.configuration.shared import Ignored, restrict
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.shell.environment import Environment, Setting
from cvmfs_graphdriver.shell.errors import ShellError
from cvmfs_graphdriver.shell.evaluation import evaluate

__all__ = [
    "ConfigRepository",
    "Configuration",
    "files_ending",
    "load_configuration",
    "mounted_config_repository",
]

ConfigRepository = Callable[[str, Path], Path | None]
"""Given the name of a configuration repository and its mountpoint, returns the directory with its content,
which may be another one; None if it is unavailable."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_YES = frozenset({"YES", "ON", "TRUE", "1"})


class Configuration(Mapping[str, Setting]):
    """All variables that are set, and the values of the exported ones; ``files`` in reading order.

    ``shared`` is ``etc/cvmfs`` in the configuration repository, if there is one; ``ignored`` are settings in
    it that are left to the node.
    """

    def __init__(
        self,
        fqrn: str,
        settings: Mapping[str, Setting],
        exported: Mapping[str, str],
        files: tuple[Path, ...],
        shared: Path | None,
        ignored: tuple[Ignored, ...],
    ) -> None:
        self.fqrn = fqrn
        self.settings = settings
        self.exported = exported
        self.files = files
        self.shared = shared
        self.ignored = ignored

    def __getitem__(self, name: str) -> Setting:
        return self.settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def __len__(self) -> int:
        return len(self.settings)


def files_ending(directory: Path, ending: str) -> list[Path]:
    """The files in a directory whose names have this ending, sorted; none if it cannot be read."""
    try:
        names = sorted(os.listdir(directory))  # Path.glob compiles regular expressions, which is slow
    except OSError:
        return []
    return [directory / name for name in names if name.endswith(ending)]


def mounted_config_repository(name: str, directory: Path) -> Path | None:
    """The mountpoint of the configuration repository; None if it is not mounted."""
    del name
    return directory if (directory / "etc" / "cvmfs").is_dir() else None


def load_configuration(
    fqrn: str,
    etc: Path,
    overrides: Mapping[str, str],
    config_repository: ConfigRepository = mounted_config_repository,
) -> Configuration:
    """Evaluate all files that configure ``fqrn``; ``overrides`` take precedence over them.

    The domain CVMFS_DEFAULT_DOMAIN is appended to a name without a dot.

    Raises ConfigurationError: the repository name is invalid, a file cannot be evaluated, or the
    configuration repository is required and unavailable.
    """
    if not _NAME.fullmatch(fqrn):
        raise ConfigurationError(f"{fqrn!r} is not a valid repository name, such as unpacked.cern.ch")
    return _Search(fqrn, etc, config_repository).run(overrides)


class _Search:
    """One walk through the search order."""

    def __init__(self, fqrn: str, etc: Path, config_repository: ConfigRepository) -> None:
        self._fqrn = fqrn
        self._etc = etc
        self._config_repository = config_repository
        self._environment = Environment()
        self._files: list[Path] = []
        self._ignored: list[Ignored] = []
        self._moved = ("", "")
        self._foreign: dict[Path, None] = {}

    def run(self, overrides: Mapping[str, str]) -> Configuration:
        self._read(self._etc / "default.conf")
        for path in files_ending(self._etc / "default.d", ".conf"):
            self._read(path)
        # Only the files read so far choose the configuration repository: it must not replace itself.
        shared = self._shared_directory()
        self._read_shared(shared, "default")
        self._read(self._etc / "default.local")
        if "." not in self._fqrn and (domain := self._value("CVMFS_DEFAULT_DOMAIN")):
            self._fqrn += f".{domain}"
        domain = self._fqrn.partition(".")[2]
        for name in (f"domain.d/{domain}", f"config.d/{self._fqrn}"):
            self._read_shared(shared, name)
            self._read(self._etc / f"{name}.conf")
            self._read(self._etc / f"{name}.local")
        settings = {name: self._template(setting) for name, setting in self._environment.settings.items()}
        settings |= {name: Setting(value, "command line") for name, value in overrides.items()}
        exported = {name: settings[name].value for name in self._environment.exported & settings.keys()}
        return Configuration(self._fqrn, settings, exported, tuple(self._files), shared, tuple(self._ignored))

    def _read(self, path: Path) -> None:
        if not path.is_file():
            return
        if (mounts := self._value("CVMFS_MOUNT_DIR")).startswith("/"):
            self._foreign[Path(mounts)] = None  # earlier ones stay: the configuration repository may set it
        try:
            self._environment = evaluate(path, self._environment, tuple(self._foreign))
        except ShellError as error:
            raise ConfigurationError(str(error)) from error
        self._files.append(path)

    def _read_shared(self, shared: Path | None, name: str) -> None:
        """Read a file of the configuration repository."""
        if shared is None:
            return
        before = self._environment
        self._read(shared / f"{name}.conf")
        places = (shared.parent.parent, Path(self._moved[0]))
        self._ignored += restrict(before, self._environment, places)

    def _value(self, name: str) -> str:
        setting = self._environment.settings.get(name)
        return setting.value if setting else PARAMETERS[name].default

    def _shared_directory(self) -> Path | None:
        """``etc/cvmfs`` in the configuration repository, if there is one for this repository."""
        name = self._value("CVMFS_CONFIG_REPOSITORY")
        if not name or name == self._fqrn:
            return None
        if "/" in name or name.startswith("."):
            origin = self._environment.settings["CVMFS_CONFIG_REPOSITORY"].origin
            raise ConfigurationError(
                f"{origin}: CVMFS_CONFIG_REPOSITORY={name!r} is not a valid repository name"
            )
        mounted = Path(self._value("CVMFS_MOUNT_DIR")) / name
        directory = self._config_repository(name, mounted)
        if directory is not None:
            self._moved = (f"{mounted}/", f"{directory}/")
            self._foreign[directory] = None
            return directory / "etc" / "cvmfs"
        if self._value("CVMFS_CONFIG_REPO_REQUIRED").upper() in _YES:
            raise ConfigurationError(
                f"{self._fqrn}: the configuration repository {name} is unavailable, and "
                f"CVMFS_CONFIG_REPO_REQUIRED is set; mount it, or configure it so that it can be fetched"
            )
        return None

    def _template(self, setting: Setting) -> Setting:
        # Files name content of the configuration repository as if it were mounted.
        value = setting.value.replace(*self._moved) if self._moved[0] else setting.value
        value = value.replace("@fqrn@", self._fqrn).replace("@org@", self._fqrn.partition(".")[0])
        return setting if value == setting.value else Setting(value, setting.file, setting.line)
