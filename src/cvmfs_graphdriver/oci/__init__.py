"""Container images as the OCI and Docker specifications describe them: documents, layers, registries.

Knows neither CernVM-FS internals nor the Docker engine.
"""
