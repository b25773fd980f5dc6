"""The CernVM-FS format, sans-IO: names, digests, signed letters, the trust chain, catalogs, chunking.

Knows neither the network, nor a cache, nor the kernel. Catalogs are SQLite files, so it opens files that
its caller has verified; it never fetches one.
"""
