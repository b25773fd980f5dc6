"""Docker's graph driver plugin protocol over its unix socket, and the plugin's packaging.

Knows nothing of gRPC or containerd.
"""
