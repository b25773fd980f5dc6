"""containerd's snapshots service: images' layers lazily from repositories, everything else as overlayfs does.

Must not know: Docker's graph driver protocol.
"""
