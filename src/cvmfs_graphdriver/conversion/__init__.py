"""From an image in a registry to layers in a repository and a thin image.

Knows nothing of the kernel.
"""
