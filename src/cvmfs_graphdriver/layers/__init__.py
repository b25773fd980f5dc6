"""Layers on disk and as mounts: their directories, their chains, the thin layers among them.

Must not know: protocols, neither Docker's nor containerd's.
"""
