"""Converting images from registries into layers in a repository and thin images.

Knows nothing about the kernel.
"""
