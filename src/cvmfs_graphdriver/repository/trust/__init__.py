"""The trust chain: keys, certificates, signed letters, whitelist, blacklist."""
