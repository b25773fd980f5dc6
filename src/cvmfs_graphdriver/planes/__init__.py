"""Giving a mounted revision to the kernel.

Knows nothing of the Docker protocol.
"""
