"""The cache of verified objects on disk: arrival, the ledger of what is there, eviction, fsck."""
