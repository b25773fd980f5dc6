"""The cache of verified objects on disk: arrival of objects, the ledger, eviction, fsck."""
