"""Registries: transport, authentication, credentials, blobs."""
