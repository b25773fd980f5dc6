"""A CernVM-FS client: configuration from /etc/cvmfs, failover, cache, immutable mounted revisions.

Knows neither Docker, nor containerd, nor OCI.

    >>> from cvmfs_graphdriver.client.config_repository import load_settings  # doctest: +SKIP
    >>> client = Client(load_settings("unpacked.cern.ch"))  # doctest: +SKIP
    >>> revision = client.mount()  # doctest: +SKIP
    >>> [node.path for node in revision.list(b"/")]  # doctest: +SKIP
"""
