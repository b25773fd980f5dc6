"""cvmfs-graphdriver: Docker containers straight from a CernVM-FS repository.

The rooms and what each may know are described in docs/architecture.md. A room imports only from rooms on
lower floors: repository, kernel, oci < client, publisher < planes, conversion < layers < graphdriver < cli.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
