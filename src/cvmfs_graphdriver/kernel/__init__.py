"""Linux as it is: mounts, openat2, the FUSE wire protocol, overlayfs rules.

Knows neither CernVM-FS nor Docker.
"""
