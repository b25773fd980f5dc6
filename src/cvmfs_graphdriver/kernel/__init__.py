"""Linux: mounts, openat2, the FUSE protocol, overlayfs, EROFS images, child processes.

Knows neither CernVM-FS nor Docker.
"""
