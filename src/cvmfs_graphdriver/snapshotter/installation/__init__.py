"""Making an engine use the snapshotter: what is written to its configuration, and taken back."""
