"""Fetching ahead of a walk through a tree, and feeding the kernel's page cache."""
