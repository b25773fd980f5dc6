"""The FUSE protocol in pure Python, and a server for it; what is served is defined elsewhere."""
