"""Container images as the OCI and Docker specifications describe them: references, manifests, layers, registries.

Knows neither CernVM-FS internals nor the Docker engine.
"""
