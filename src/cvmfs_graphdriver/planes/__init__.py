"""Presenting a mounted revision to the kernel.

Knows nothing about the Docker protocol.
"""
