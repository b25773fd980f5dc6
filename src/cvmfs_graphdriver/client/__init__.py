"""A CernVM-FS client: configuration from /etc/cvmfs, network with failover, cache, immutable mounted revisions.

Knows neither Docker, nor containerd, nor OCI.
"""
