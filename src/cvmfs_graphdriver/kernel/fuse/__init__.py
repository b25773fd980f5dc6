"""The FUSE protocol in pure Python: what the kernel says, serving it, and nothing of what is served."""
