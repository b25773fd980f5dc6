"""Container images as specified by OCI and Docker: documents, layers, registries.

Knows neither CernVM-FS internals nor the Docker engine.
"""
