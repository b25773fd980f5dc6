"""Whether everything is in place for the snapshotter; nothing is changed."""
