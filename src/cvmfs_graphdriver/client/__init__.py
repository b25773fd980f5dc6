"""A CernVM-FS client: configuration from /etc/cvmfs, failover, cache, immutable mounted revisions.

Knows neither Docker, nor containerd, nor OCI. Where to look:

* ``client``: which revision is mounted; everything else is assembled there.
* ``configuration/``: parameters; ``config_repository``: ``load_settings``.
* ``network/``: servers, proxies, name servers; the place to limit the rate of downloads. ``pac/`` reads proxy
  configuration files.
* ``cache/``: objects on disk; another eviction policy belongs in ``eviction``.
* ``objects/``: fetching, prefetching and reading objects; ``tree/``: catalogs, inodes, a mounted revision.
* ``administration/``: talk socket, status, metrics, ``config check``.

To record which files are opened, see ``planes/filesystem``: files are opened there, on behalf of users.

    >>> from cvmfs_graphdriver.client.config_repository import load_settings  # doctest: +SKIP
    >>> client = Client(load_settings("unpacked.cern.ch"))  # doctest: +SKIP
    >>> revision = client.mount()  # doctest: +SKIP
    >>> [node.path for node in revision.list(b"/")]  # doctest: +SKIP
"""
