"""containerd's snapshotter."""
