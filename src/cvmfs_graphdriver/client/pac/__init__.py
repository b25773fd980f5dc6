"""Proxy configuration files: running one, and reading its answer."""
