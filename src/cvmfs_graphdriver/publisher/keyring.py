"""The keys of a repository on disk, as stock tools name them (CernVM-FS format reference, section 2.5).

Owns: file names and permissions in a keys directory (``/etc/cvmfs/keys``). Must not know: what they sign.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cvmfs_graphdriver.kernel.directories import make_directories
from cvmfs_graphdriver.publisher.errors import KeyringError
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.trust.keys import Certificate, PublicKey, load_public_keys
from cvmfs_graphdriver.repository.trust.signing import SigningKey

__all__ = ["Keyring", "load_master_public_keys"]

_DIRECTORY = 0o755
"""As in the stock server: clients read the public key as another user."""
_SECRET = 0o400
_PUBLIC = 0o444


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of one repository. ``master``, which signs whitelists only, may be kept elsewhere (None)."""

    fqrn: str
    key: SigningKey
    certificate: Certificate
    public: PublicKey
    master: SigningKey | None = None

    @classmethod
    def create(cls, fqrn: str, directory: Path) -> Self:
        """Generate and store new keys. Raises KeyringError: the repository already has keys there."""
        master, key = SigningKey.generate(), SigningKey.generate()
        ring = cls(fqrn, key, key.certify(fqrn), master.public, master)
        files = {
            f"{fqrn}.masterkey": (master.pem, _SECRET),
            f"{fqrn}.key": (key.pem, _SECRET),
            f"{fqrn}.crt": (ring.certificate.pem, _PUBLIC),
            f"{fqrn}.pub": (master.public.pem, _PUBLIC),
        }
        with ExitStack() as undo:
            try:
                make_directories(directory, _DIRECTORY)
                for name in files:
                    if (directory / name).exists():
                        raise KeyringError(
                            f"{directory / name} already exists: the keys of {fqrn} are never overwritten"
                        )
                undo.callback(ring.delete, directory)
                for name, (pem, mode) in files.items():
                    descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                    with open(descriptor, "wb") as file:
                        os.fchmod(descriptor, mode)
                        file.write(pem)
            except OSError as error:
                raise KeyringError(f"cannot store keys in {directory}: {error.strerror}") from error
            undo.pop_all()
        return ring

    def delete(self, directory: Path) -> None:
        """Delete the files that ``create`` wrote."""
        for suffix in ("masterkey", "key", "crt", "pub"):
            (directory / f"{self.fqrn}.{suffix}").unlink(missing_ok=True)

    @classmethod
    def load(cls, fqrn: str, directory: Path) -> Self:
        """Read the keys; only the master key may be missing. Raises KeyringError."""

        def read(suffix: str) -> bytes:
            return _read(fqrn, directory, suffix)

        try:
            master = (
                SigningKey.parse(read("masterkey")) if (directory / f"{fqrn}.masterkey").exists() else None
            )
            key = SigningKey.parse(read("key"))
            return cls(fqrn, key, Certificate.parse(read("crt")), load_public_keys(read("pub"))[0], master)
        except FormatError as error:
            raise KeyringError(f"a key of {fqrn} in {directory} cannot be used: {error}") from error


def load_master_public_keys(fqrn: str, directory: Path) -> list[PublicKey]:
    """The public keys that a reader needs. Raises KeyringError: there are none, or they are unusable."""
    try:
        return load_public_keys(_read(fqrn, directory, "pub"))
    except FormatError as error:
        raise KeyringError(f"the public key of {fqrn} in {directory} cannot be used: {error}") from error


def _read(fqrn: str, directory: Path, suffix: str) -> bytes:
    path = directory / f"{fqrn}.{suffix}"
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyringError(
            f"{fqrn} needs {path}, which cannot be read: {error.strerror}; "
            "use --keys to name the directory of its keys"
        ) from error
